"""Tests of the optional template for a Prefect server: two emulators create its stack, and it has properties that
neither they nor linters check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from deployment import PROJECT_ROOT
from deployment.aws.deploy_stack import TEMPLATE
from deployment.aws.templates import template_body
from deployment.local.cloud import LocalCloud
from tests.infra.template import Template, load_template, resource, resources_of, text_of
from tests.infra.waiting import eventually

pytestmark = [
    pytest.mark.cloud,
    pytest.mark.filterwarnings("ignore:.*not supported by moto:UserWarning", "ignore:.*No Moto.*"),
]

PREFECT_SERVER = PROJECT_ROOT / "deployment" / "aws" / "prefect_server.yaml"


_NOT_IN_MOTO = {"ServerName", "Server"}
_NOT_IN_MINISTACK = {"ClientToServer", "ServerToDatabase", "ServerToEndpoints"}


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template(PREFECT_SERVER)


@pytest.fixture
def container(template: Template) -> Any:
    return resource(template, "TaskDefinition")["Properties"]["ContainerDefinitions"][0]


def made_in(cloudformation: Any, ec2: Any, body: str) -> dict[str, Any]:
    """Create a stack with two new subnets, wait until CloudFormation has finished, and return the stack."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"] for number in (1, 2)]
    cloudformation.create_stack(
        StackName="prefect",
        TemplateBody=body,
        Parameters=[
            {"ParameterKey": "VpcId", "ParameterValue": vpc},
            {"ParameterKey": "SubnetIds", "ParameterValue": ",".join(subnets)},
        ],
        Capabilities=["CAPABILITY_IAM"],
    )

    def at_rest() -> dict[str, Any] | None:
        stack: dict[str, Any] = cloudformation.describe_stacks(StackName="prefect")["Stacks"][0]
        return None if stack["StackStatus"].endswith("IN_PROGRESS") else stack

    return eventually(at_rest, seconds=60)


def test_the_local_cloud_creates_it_with_a_generated_password(template: Template, tmp_path: Path) -> None:
    """Create the stack in MiniStack, whose CloudFormation does not support separate security group rules."""
    made = {*template["Resources"], *template["Outputs"]} - _NOT_IN_MINISTACK
    body = json.loads(template_body(PREFECT_SERVER, only=made))
    del body["Resources"]["Server"]["DependsOn"]
    with LocalCloud(tmp_path, with_prefect=False) as cloud:
        stack = made_in(cloud.client("cloudformation"), cloud.client("ec2"), json.dumps(body))
        outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        secrets = cloud.client("secretsmanager")
        auth_string = secrets.get_secret_value(SecretId=outputs["AuthStringSecretArn"])["SecretString"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert outputs["ApiUrl"] == "http://server.prefect.internal:4200/api"
    user, _, password = auth_string.partition(":")
    assert user == "prefect"
    assert len(password) == 40


def test_a_second_emulator_creates_it(template: Template) -> None:
    """Create the stack in moto, whose CloudFormation creates no secrets and no DNS names."""
    made = {*template["Resources"], *template["Outputs"]} - _NOT_IN_MOTO
    with mock_aws(), pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        session = boto3.Session(region_name="eu-central-1")
        body = template_body(PREFECT_SERVER, only=made)  # moto supports only the long form of Fn::GetAtt
        stack = made_in(session.client("cloudformation"), session.client("ec2"), body)
        database = session.client("rds").describe_db_instances()["DBInstances"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert (database["StorageEncrypted"], database["PubliclyAccessible"]) == (True, False)


def test_its_outputs_match_parameters_of_the_pipeline(template: Template) -> None:
    assert {"ApiUrl", "AuthStringSecretArn", "ClientSecurityGroupId", "SubnetIds", "AssignPublicIp"} <= set(
        template["Outputs"]
    )
    wanted = {"PrefectApiUrl", "PrefectAuthStringSecretArn", "SecurityGroupIds", "SubnetIds", "AssignPublicIp"}
    assert wanted <= set(load_template(TEMPLATE)["Parameters"])


def test_nothing_of_it_can_be_reached_from_the_internet(template: Template) -> None:
    for name, group in resources_of(template, "AWS::EC2::SecurityGroup").items():
        for rule in group["Properties"].get("SecurityGroupIngress", []):
            assert "SourceSecurityGroupId" in rule, f"{name} lets in more than a security group"
    assert resource(template, "Database")["Properties"]["PubliclyAccessible"] in (False, "false")
    assert template["Parameters"]["AssignPublicIp"]["Default"] == "DISABLED"


def test_the_log_of_the_database_expires(template: Template) -> None:
    """RDS writes to /aws/rds/instance/IDENTIFIER/postgresql. If that log group does not exist, RDS creates it without a
    retention period.

    RDS for PostgreSQL database log files:
    docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_LogAccess.Concepts.PostgreSQL.html
    """
    database, logs = resource(template, "Database"), resource(template, "DatabaseLogs")["Properties"]
    identifier = text_of(database["Properties"]["DBInstanceIdentifier"])
    assert text_of(logs["LogGroupName"]) == f"/aws/rds/instance/{identifier}/postgresql"
    assert logs["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    assert database["DependsOn"] == "DatabaseLogs"


def test_the_database_can_grow_from_every_allowed_size(template: Template) -> None:
    """RDS requires the limit to be at least 10% larger than the allocated storage.

    Managing capacity automatically with Amazon RDS storage autoscaling:
    docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_PIOPS.Autoscaling.html
    """
    limit = resource(template, "Database")["Properties"]["MaxAllocatedStorage"]
    assert template["Parameters"]["DatabaseStorageGiB"]["MaxValue"] * 1.1 <= limit


def test_the_database_is_encrypted_backed_up_and_protected_from_deletion(template: Template) -> None:
    database = resource(template, "Database")
    assert database["Properties"]["StorageEncrypted"] in (True, "true")
    assert (database["DeletionPolicy"], database["UpdateReplacePolicy"]) == ("Snapshot", "Snapshot")
    assert template["Parameters"]["DatabaseDeletionProtection"]["Default"] == "true"
    assert template["Parameters"]["DatabaseBackupDays"]["MinValue"] >= 1


def test_passwords_come_from_secrets_manager_and_reach_the_server_as_secrets(
    template: Template, container: Any
) -> None:
    assert {secret["Name"] for secret in container["Secrets"]} == {
        "PREFECT_SERVER_DATABASE_PASSWORD",
        "PREFECT_SERVER_API_AUTH_STRING",
    }
    assert not [one for one in container["Environment"] if "PASSWORD" in one["Name"] or "AUTH" in one["Name"]]
    assert not [name for name in template["Parameters"] if "assword" in name or "Secret" in name]
    assert "{{resolve:secretsmanager:" in text_of(resource(template, "Database")["Properties"]["MasterUserPassword"])


def test_the_server_is_not_root_and_has_no_task_role(template: Template, container: Any) -> None:
    assert container["User"] not in ("0", "root", None)
    assert container["Privileged"] in (False, "false")
    assert "TaskRoleArn" not in resource(template, "TaskDefinition")["Properties"]


def test_there_is_never_more_than_one_server(template: Template) -> None:
    """Without a shared Redis, each of two servers would receive only some of the events."""
    service = resource(template, "Server")["Properties"]
    assert int(service["DesiredCount"]) == 1
    assert int(service["DeploymentConfiguration"]["MaximumPercent"]) == 100


def test_the_servers_version_is_the_projects(template: Template) -> None:
    import importlib.metadata

    assert f":{importlib.metadata.version('prefect')}-python" in template["Parameters"]["ImageUri"]["Default"]
