"""The template in moto's CloudFormation, a second implementation whose gaps differ from those of the local cloud.

moto does not support some resource types, and ignores some properties of others. They are listed here. Tests of the
template itself (test_template.py) or in the local cloud (test_stack.py) cover them.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto import mock_aws

from deployment.aws.deploy_stack import TEMPLATE
from deployment.aws.packaging import Timeouts, build_artifacts
from tests.infra.template import load_template, resources_of, statements_of

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS.*not supported by moto:UserWarning")

REGION, ACCOUNT = "eu-central-1", "123456789012"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:prefect-AbCdEf"
TEMPLATE_DATA = load_template()

# The types that moto 5.2's CloudFormation cannot create, each with the test that covers it instead.
NOT_IN_MOTO = {
    "AWS::S3::BucketPolicy": "TLS only: test_template.py",
    "AWS::SQS::QueuePolicy": "TLS only: test_template.py",
    "AWS::SNS::TopicPolicy": "this account only: test_template.py",
    "AWS::Lambda::EventInvokeConfig": "the failure destination: test_template.py, and for real in tests/faults",
    "AWS::Scheduler::Schedule": "the sweep: for real in tests/chain",
    "AWS::CloudWatch::Alarm": "what is watched: test_template.py",
    "AWS::SNS::Subscription": "made only where an address is given: test_template.py",
}
# moto creates buckets without versioning, public access block, lifecycle, notification and ownership, repositories
# without encryption and scanning, state machines without a definition from S3, logging and tracing, and log groups
# without their key. It stores a role's policy as the repr of a Python object, not as JSON.


@dataclass
class Made:
    """A stack in moto, with methods to inspect it."""

    name: str
    ids: dict[str, str]

    def queue(self, name: str) -> dict[str, str]:
        answer = client("sqs").get_queue_attributes(QueueUrl=self.ids[name], AttributeNames=["All"])
        return dict(answer["Attributes"])

    def encryption(self, name: str) -> dict[str, str]:
        answer = client("s3").get_bucket_encryption(Bucket=self.ids[name])
        (rule,) = answer["ServerSideEncryptionConfiguration"]["Rules"]
        return dict(rule["ApplyServerSideEncryptionByDefault"])

    def role(self, name: str) -> dict[str, Any]:
        return dict(client("iam").get_role(RoleName=self.ids[name])["Role"])

    def log_groups(self) -> list[dict[str, Any]]:
        groups = client("logs").describe_log_groups()["logGroups"]
        return [group for group in groups if f"/{self.name}" in group["logGroupName"]]


def client(service: str) -> Any:
    connect: Any = boto3.client  # the overloads do not accept a variable
    return connect(service, region_name=REGION)


@pytest.fixture(scope="module")
def artifacts() -> Iterator[dict[str, str]]:
    """Start moto with the artifacts in a bucket, and yield the parameters that name them."""
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        # deploy_stack is not used here, because its bucket rejects plain HTTP, and then moto rejects every request.
        client("s3").create_bucket(Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
        packaged = build_artifacts(Timeouts(60, 600))
        for one in packaged:
            client("s3").put_object(Bucket="artifacts", Key=one.key, Body=one.body)
        yield {"ArtifactBucket": "artifacts", **{one.parameter: one.key for one in packaged}}


def _for_moto(template: str) -> str:
    """Return the template with its checks for empty lists in a form that moto supports, but MiniStack does not. moto's
    Fn::Select returns nothing for the first item of an empty list, where AWS's returns an empty string."""
    asked = r"!Equals \[!Select \[0, !Ref (SubnetIds|SecurityGroupIds|AvailabilityZones)\]"
    replaced, count = re.subn(asked, r'!Equals [!Join ["", !Ref \1]', template)
    assert count == 3
    return replaced


def deployed(stack_name: str, parameters: dict[str, str]) -> Made:
    given = {"ImageUri": "sluice:1", "PrefectApiUrl": "https://prefect.example.com/api", **parameters}
    cloudformation = client("cloudformation")
    cloudformation.create_stack(
        StackName=stack_name,
        TemplateBody=_for_moto(TEMPLATE.read_text(encoding="utf-8")),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    assert cloudformation.describe_stacks(StackName=stack_name)["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    resources = cloudformation.list_stack_resources(StackName=stack_name)["StackResourceSummaries"]
    return Made(stack_name, {one["LogicalResourceId"]: one.get("PhysicalResourceId", "") for one in resources})


@pytest.fixture(scope="module")
def plain(artifacts: dict[str, str]) -> Made:
    """Create a stack with only the required parameters."""
    return deployed("plain", artifacts)


@pytest.fixture(scope="module")
def guarded(artifacts: dict[str, str]) -> Made:
    """Create a stack with all options that a restrictive account requires."""
    asked = {"KmsKeyArn": KEY, "PermissionsBoundaryArn": BOUNDARY, "PrivateNetwork": "true"}
    return deployed("guarded", {**artifacts, **asked, "PrefectApiKeySecretArn": SECRET, "UseSpot": "true"})


def of_type(kind: str) -> list[str]:
    return list(resources_of(TEMPLATE_DATA, kind))


def test_everything_is_created_except_what_moto_does_not_support(plain: Made) -> None:
    closed = {"ClosedNetwork"}
    missing = {
        name: one["Type"]
        for name, one in TEMPLATE_DATA["Resources"].items()
        if name not in plain.ids and one.get("Condition") not in closed
    }
    assert set(missing.values()) == set(NOT_IN_MOTO), "list what moto learnt or lost"


def test_buckets_and_queues_are_encrypted_by_default(plain: Made) -> None:
    for name in of_type("AWS::S3::Bucket"):
        assert plain.encryption(name) == {"SSEAlgorithm": "AES256"}
    for name in of_type("AWS::SQS::Queue"):
        assert plain.queue(name)["SqsManagedSseEnabled"] == "true"


def test_a_message_that_cannot_be_processed_is_kept_in_the_dead_letter_queue(plain: Made) -> None:
    redrive = json.loads(plain.queue("UploadQueue")["RedrivePolicy"])
    assert redrive == {"deadLetterTargetArn": plain.queue("DeadLetterQueue")["QueueArn"], "maxReceiveCount": 5}
    kept = [int(plain.queue(name)["MessageRetentionPeriod"]) for name in ("UploadQueue", "DeadLetterQueue")]
    assert kept[0] < kept[1]


@pytest.mark.parametrize("name", of_type("AWS::IAM::Role"))
def test_a_role_has_the_statements_of_its_policy(plain: Made, name: str) -> None:
    (policy,) = resources_of(TEMPLATE_DATA, "AWS::IAM::Role")[name]["Properties"]["Policies"]
    stored = client("iam").get_role_policy(RoleName=plain.ids[name], PolicyName=policy["PolicyName"])
    made = {one["Sid"] for one in ast.literal_eval(stored["PolicyDocument"])["Statement"] if one}
    optional = {"UseKey", "ReadPrefectKey", "ReadPrefectAuthString"}
    assert made == {one["Sid"] for one in statements_of(policy["PolicyDocument"])} - optional
    assert "${" not in stored["PolicyDocument"]


def test_the_container_is_unprivileged_and_read_only(plain: Made) -> None:
    described = client("ecs").describe_task_definition(taskDefinition="plain-drain")["taskDefinition"]
    (container,) = described["containerDefinitions"]
    assert (container["user"], container["privileged"], container["readonlyRootFilesystem"]) == ("10001", False, True)


def test_the_default_network_has_an_internet_gateway_and_no_nat(plain: Made) -> None:
    ec2 = client("ec2")
    mine = [{"Name": "vpc-id", "Values": [plain.ids["Vpc"]]}]
    routes = [route for table in ec2.describe_route_tables(Filters=mine)["RouteTables"] for route in table["Routes"]]
    assert [route["GatewayId"] for route in routes if route.get("DestinationCidrBlock") == "0.0.0.0/0"] == [
        plain.ids["InternetGateway"]
    ]
    assert ec2.describe_nat_gateways()["NatGateways"] == []


def test_images_cannot_be_replaced_under_their_tag(plain: Made) -> None:
    (repository,) = client("ecr").describe_repositories(repositoryNames=["plain/drain"])["repositories"]
    assert repository["imageTagMutability"] == "IMMUTABLE"


def test_logs_expire_after_30_days(plain: Made) -> None:
    assert {group["logGroupName"]: group["retentionInDays"] for group in plain.log_groups()} == {
        "/sluice/plain/trigger": 30,
        "/sluice/plain/task": 30,
        "/aws/vendedlogs/states/plain": 30,
    }


def test_a_key_a_boundary_and_a_closed_network_can_be_given_as_parameters(guarded: Made) -> None:
    for name in of_type("AWS::S3::Bucket"):
        assert guarded.encryption(name) == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    for name in of_type("AWS::SQS::Queue"):
        assert guarded.queue(name)["KmsMasterKeyId"] == KEY
    for name in of_type("AWS::IAM::Role"):
        assert guarded.role(name)["PermissionsBoundary"]["PermissionsBoundaryArn"] == BOUNDARY
    assert not {"InternetGateway", "RouteOut"} & set(guarded.ids)
    mine = [{"Name": "vpc-id", "Values": [guarded.ids["Vpc"]]}]
    endpoints = client("ec2").describe_vpc_endpoints(Filters=mine)["VpcEndpoints"]
    assert sorted(endpoint["ServiceName"].removeprefix(f"com.amazonaws.{REGION}.") for endpoint in endpoints) == [
        *("ecr.api", "ecr.dkr", "ecs", "events", "logs", "monitoring", "s3", "secretsmanager", "sqs", "states")
    ]
