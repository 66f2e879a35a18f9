"""Checks every policy in the templates against a list of AWS's actions, resource types and condition keys."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deployment import PROJECT_ROOT
from tests.infra.template import Template, listed, load_template, statements_of, text_of
from tests.infra.test_linters import TEMPLATES, needs_linters
from tests.linters.secrets import SCANNER

_REGIONAL = "arn:aws:{service}:eu-central-1:123456789012:{rest}"
_ARNS = {
    "AWS::EC2::VPC": ("ec2", "vpc/vpc-1"),
    "AWS::ECR::Repository": ("ecr", "repository/sluice/drain"),
    "AWS::ECS::Cluster": ("ecs", "cluster/sluice-Cluster-1"),
    "AWS::KMS::Key": ("kms", "key/1"),
    "AWS::Logs::LogGroup": ("logs", "log-group:/sluice/sluice/task:*"),
    "AWS::SecretsManager::Secret": ("secretsmanager", "secret:prefect-AbCdEf"),
    "AWS::SNS::Topic": ("sns", "sluice-AlarmTopic-1"),
    "AWS::SQS::Queue": ("sqs", "sluice-UploadQueue-1"),
    "AWS::StepFunctions::StateMachine": ("states", "stateMachine:sluice-sweep"),
}
_PARAMETERS = {
    "KmsKeyArn": _REGIONAL.format(service="kms", rest="key/1"),
    "PrefectSecretArn": _REGIONAL.format(service="secretsmanager", rest="secret:prefect-AbCdEf"),
    "PrefectApiKeySecretArn": _REGIONAL.format(service="secretsmanager", rest="secret:prefect-AbCdEf"),
    "PrefectAuthStringSecretArn": _REGIONAL.format(service="secretsmanager", rest="secret:prefect-AbCdEf"),
}


# Findings that are not errors, each with its reason.
KNOWN = {
    "cloudformation:DescribeEvents does not exist": "newer than the list; botocore's model of CloudFormation has it",
    "lambda:GetFunctionScalingConfig does not exist": "newer than the list; CloudFormation's schema names it",
    "kms:DescribeKey has no condition kms:EncryptionContext:aws:logs:arn": "the statement of AWS's own page: "
    "docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html",
}


def policies_in(template: Template) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each policy in a template, except trust policies, after the logical ID of its resource."""
    for name, one in template["Resources"].items():
        properties = one.get("Properties", {})
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        documents += [properties[key] for key in ("PolicyDocument", "KeyPolicy") if key in properties]
        for document in documents:
            statements = [_plain(statement, template) for statement in statements_of(document)]
            yield name, {"Statement": statements}


def _plain(statement: Mapping[str, Any], template: Template) -> dict[str, Any]:
    """Return a statement with an ARN in place of each reference, and with only the keys of its conditions."""
    resources = [one for value in listed(statement["Resource"]) for one in _branches(value)]
    return {
        "Effect": statement["Effect"],
        "Action": listed(statement["Action"]),
        "Resource": [_arn(text_of(one), template) for one in resources],
        "Condition": {
            operator: dict.fromkeys(map(str, keys)) for operator, keys in statement.get("Condition", {}).items()
        },
    }


def _branches(value: Any) -> list[Any]:
    if isinstance(value, Mapping) and "Fn::If" in value:
        return [one for one in value["Fn::If"][1:] if one != {"Ref": "AWS::NoValue"}]
    return [value]


def _arn(text: str, template: Template) -> str:
    def filled(reference: re.Match[str]) -> str:
        name = reference[1].partition(".")[0]
        if name in template["Resources"] and template["Resources"][name]["Type"] != "AWS::S3::Bucket":
            if not text.startswith("${"):
                return "any"  # its name, within an ARN
            kind = template["Resources"][name]["Type"]
            return (
                "arn:aws:iam::123456789012:role/sluice-any"
                if kind == "AWS::IAM::Role"
                else _REGIONAL.format(service=_ARNS[kind][0], rest=_ARNS[kind][1])
            )
        known = {"AWS::Partition": "aws", "AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012"}
        return _PARAMETERS.get(name) or known.get(name) or ("arn:aws:s3:::any" if ".Arn" in reference[1] else "any")

    return re.sub(r"\$\{([^}]+)\}", filled, text)


def findings(policies: Mapping[str, Any]) -> dict[str, list[str]]:
    done = subprocess.run(
        [SCANNER.with_name("python"), "-m", "tests.linters.policies"],
        input=json.dumps(policies),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return {name: faults for name, faults in found.items() if faults}


@needs_linters
def test_every_policy_names_only_actions_resources_and_conditions_that_aws_knows() -> None:
    found = [findings(dict(numbered(path))) for path in TEMPLATES]
    assert {fault for faults in found for one in faults.values() for fault in one} == set(KNOWN)


def numbered(path: Path) -> Iterator[tuple[str, Any]]:
    for number, (place, policy) in enumerate(policies_in(load_template(path))):
        yield f"{place} {number}", policy


@needs_linters
@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ({"Action": ["s3:PutObjects"], "Resource": ["arn:aws:s3:::b/*"]}, "s3:PutObjects does not exist"),
        ({"Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::b"]}, "s3:PutObject takes none of"),
        ({"Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::b/*"]}, "s3:ListBucket takes none of"),
        (
            {"Action": ["sqs:SendMessage"], "Resource": ["arn:aws:sns:eu-central-1:1:q"]},
            "sqs:SendMessage takes none of",
        ),
        (
            {
                "Action": ["iam:UpdateAssumeRolePolicy"],
                "Resource": ["arn:aws:iam::1:role/r"],
                "Condition": {"StringEquals": {"iam:PermissionsBoundary": "b"}},
            },
            "has no condition iam:PermissionsBoundary",
        ),
    ],
)
def test_the_check_finds(statement: dict[str, Any], fault: str) -> None:
    (found,) = findings({"bad": {"Statement": [{"Effect": "Allow", **statement}]}}).values()
    assert any(fault in one for one in found), found
