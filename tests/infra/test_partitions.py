"""Tests that ARNs have the partition of the account: aws, aws-cn or aws-us-gov (docs/decisions/0018)."""

from __future__ import annotations

import re
from pathlib import Path

import boto3
import pytest

from deployment import PROJECT_ROOT
from deployment.aws.images import registry_host
from deployment.aws.packaging import DEFINITIONS
from tests.infra.template import load_template, resource

DEPLOYED = [
    *sorted((PROJECT_ROOT / "deployment" / "aws").glob("*.*")),
    *sorted(DEFINITIONS.glob("*.json")),
    *(
        path
        for folder in ("lambda_trigger", "blocks", "flows")
        for path in sorted((PROJECT_ROOT / folder).rglob("*.py"))
    ),
]
_EXAMPLES = {"environments.py"}  # a docstring that shows an environment file


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.relative_to(PROJECT_ROOT).as_posix())
def test_no_arn_of_what_is_deployed_names_a_partition(path: Path) -> None:
    assert path.name in _EXAMPLES or re.findall(r"arn:aws[a-z-]*:", path.read_text(encoding="utf-8")) == []


def test_the_state_machines_integrations_have_the_stacks_partition() -> None:
    """In China, Step Functions cannot start an execution whose service integrations have the partition aws.

    github.com/aws/aws-cdk/issues/4597 (misconfigured partition in the resourceArn of service integrations)
    """
    substitutions = resource(load_template(), "DrainMachine")["Properties"]["DefinitionSubstitutions"]
    assert substitutions["Partition"] == {"Ref": "AWS::Partition"}


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "123456789012.dkr.ecr.eu-central-1.amazonaws.com"),
        ("us-gov-west-1", "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_the_registrys_domain_matches_the_regions_partition(region: str, host: str) -> None:
    assert registry_host(boto3.client("ecr", region_name=region), "123456789012") == host
