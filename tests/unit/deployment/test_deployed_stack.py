"""A stack that has all outputs of this release is used. Another one is outdated, or missing if it has no pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from blocks.settings import STACK_OUTPUTS
from deployment.aws.access import Access
from deployment.deployed_stack import StackMissing, StackOutdated, find_aws_stack

_ACCESS = Access("123456789012", "us-east-1", "arn:aws:iam::123456789012:user/a", "")


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


def deployed(*outputs: str) -> None:
    template = {
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {output: {"Value": "60"} for output in outputs},
    }
    boto3.client("cloudformation").create_stack(StackName="sluice", TemplateBody=json.dumps(template))


def test_a_stack_of_this_release_is_used() -> None:
    deployed(*STACK_OUTPUTS.values())
    assert find_aws_stack(_ACCESS, "sluice").outputs["WindowSeconds"] == "60"


def test_the_outputs_that_a_stack_of_another_release_lacks_are_named() -> None:
    deployed(*(output for output in STACK_OUTPUTS.values() if output != "WindowSeconds"))
    with pytest.raises(StackOutdated, match="WindowSeconds"):
        find_aws_stack(_ACCESS, "sluice")


def test_a_stack_without_a_pipeline_is_missing() -> None:
    deployed("VpcId")
    with pytest.raises(StackMissing):
        find_aws_stack(_ACCESS, "sluice")
