"""Tests of registering blocks on a real Prefect server."""

from __future__ import annotations

from prefect_aws import AwsCredentials

from deployment.prefect_setup.blocks import leave_out_icon
from tests.prefect_server import PrefectServer


def test_the_block_type_for_credentials_loses_only_the_url_of_its_icon(server: PrefectServer) -> None:
    AwsCredentials(region_name="eu-central-1").save("sluice-aws", overwrite=True)
    before = server.call("GET", "/block_types/slug/aws-credentials")
    assert before["logo_url"].startswith("https://")
    leave_out_icon(AwsCredentials)
    after = server.call("GET", "/block_types/slug/aws-credentials")
    assert after == {**before, "logo_url": None, "updated": after["updated"]}
