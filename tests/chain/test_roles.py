"""Tests that manual runs have the roles that they have on AWS, and that the task's role is limited, with IAM
enforced."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.chain.chain import NAMES, Chain
from tests.chain.files import good_orders
from tests.emulator.records import decisions_of

pytestmark = [pytest.mark.cloud, pytest.mark.usefixtures("worker")]


def test_a_manual_run_is_denied_what_the_task_role_may_not_do(chain: Chain) -> None:
    """If the worker had root credentials, nothing would be denied."""
    upload = chain.upload("incoming/_archive/2025.csv", good_orders(2))
    with chain.denied("s3:GetObjectVersion"):
        run = _ended(chain, chain.schedule(key=upload.key, dataset="orders", dry_run=True))
    assert run["state"]["type"] == "FAILED"
    assert "AwsRefused" in run["state"]["message"] or "AccessDenied" in run["state"]["message"], run["state"]
    assert ("TaskRole", "s3:GetObjectVersion", False) in _decisions(chain, upload.key)
    run = _ended(chain, chain.schedule(key=upload.key, dataset="orders"))
    assert run["state"]["name"] == "Completed"
    assert chain.receipt(upload).rows.published == 2


def test_reconcile_started_by_hand_has_its_own_role(chain: Chain) -> None:
    run = _ended(chain, chain.schedule(deployment=NAMES.deployment("reconcile"), dry_run=True))
    assert run["state"]["type"] == "COMPLETED", run["state"]
    roles = {one["role"] for one in decisions_of(chain.cloud.state_dir) if one["action"] == "s3:ListBucketVersions"}
    assert any("ReconcileRole" in role for role in roles)


@pytest.mark.parametrize("key", ["receipts/forged.json", "index/forged.json"])
def test_the_task_role_cannot_overwrite_a_receipt_or_an_index_entry_unconditionally(chain: Chain, key: str) -> None:
    """A write without If-None-Match or If-Match is rejected, whatever code the task runs."""
    s3, bucket = s3_as(chain, chain.outputs["TaskRoleArn"]), chain.outputs["PublishedBucket"]
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key=key, Body=b"{}")
    assert caught.value.response["Error"]["Code"] == "AccessDenied"
    etag = s3.put_object(Bucket=bucket, Key=key, Body=b"{}", IfNoneMatch="*")["ETag"]
    s3.put_object(Bucket=bucket, Key=key, Body=b"{}", IfMatch=etag)
    chain.s3.delete_object(Bucket=bucket, Key=key)


def test_the_task_role_stays_within_the_shipped_boundary(chain: Chain) -> None:
    """All tests in this folder run with the boundary. Even if the role's policy allows everything, the boundary limits
    it."""
    role = chain.outputs["TaskRoleArn"].rpartition("/")[2]
    iam = chain.cloud.client("iam")
    boundary = iam.get_role(RoleName=role)["Role"]["PermissionsBoundary"]["PermissionsBoundaryArn"]
    assert boundary.endswith(":policy/boundary_of_sluice")
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
    iam.put_role_policy(RoleName=role, PolicyName="everything", PolicyDocument=document)
    try:
        with pytest.raises(ClientError) as caught:
            s3_as(chain, chain.outputs["TaskRoleArn"]).put_object(
                Bucket=chain.outputs["LandingBucket"], Key="outside-every-role/forged.csv", Body=b""
            )
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="everything")
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


def s3_as(chain: Chain, role_arn: str) -> Any:
    """Return an S3 client with a role's credentials, which come from the same endpoint as those of a local worker."""
    environment = chain.cloud.endpoints.environment_of(role_arn)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        session = boto3.Session()
        given = session.get_credentials()
        assert given is not None
        frozen = given.get_frozen_credentials()
    return chain.cloud.client(
        "s3",
        aws_access_key_id=frozen.access_key,
        aws_secret_access_key=frozen.secret_key,
        aws_session_token=frozen.token,
    )


def _decisions(chain: Chain, key: str) -> set[tuple[str, str, bool]]:
    found = (one for one in decisions_of(chain.cloud.state_dir) if one["resource"].endswith(f"/{key}"))
    return {("TaskRole" if "TaskRole" in one["role"] else one["role"], one["action"], one["allowed"]) for one in found}


def _ended(chain: Chain, flow_run_id: str) -> dict[str, Any]:
    return chain.wait_for(partial(chain.final, flow_run_id), "the run to end")
