"""Deployments into the local cloud: new and repeated deployments, rejected and failed ones, rollbacks and deletions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from blocks.aws_errors import CredentialsExpired, CredentialsMissing, RegionUnusable
from deployment.aws.artifact_bucket import ArtifactBucketUnusable, artifact_bucket_name, upload_artifacts
from deployment.aws.deploy_stack import (
    TEMPLATE,
    Clients,
    RetentionElsewhere,
    StackNameInvalid,
    TemplateTooLarge,
    delete_stack,
    deploy_stack,
    preview_stack,
)
from deployment.aws.packaging import Timeouts
from deployment.aws.retention import Retention
from deployment.aws.stack import (
    Change,
    ChangesDeclined,
    ChangesRefused,
    Stack,
    StackBusy,
    StackEvent,
    StackFailed,
    StackUnusable,
    find_stack,
    outputs_of,
)
from deployment.aws.templates import MAX_INLINE_BYTES, template_body
from deployment.local.cloud import LocalCloud

pytestmark = pytest.mark.cloud

ACCOUNT_ID = "000000000000"
PARAMETERS = {"ImageUri": "sluice:local", "PrefectApiUrl": "http://127.0.0.1:4200/api"}
# Creating this stack fails, because CloudFormation notices only then that the definition is missing.
FAILING = """
Parameters:
  ArtifactBucket: {Type: String}
  LambdaCodeKey: {Type: String}
  DrainDefinitionKey: {Type: String}
Resources:
  Queue:
    Type: AWS::SQS::Queue
  Machine:
    Type: AWS::StepFunctions::StateMachine
    DependsOn: Queue
    Properties:
      RoleArn: !Sub "arn:aws:iam::${AWS::AccountId}:role/run"
      DefinitionS3Location: {Bucket: !Ref ArtifactBucket, Key: missing.asl.json}
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), with_prefect=False) as started:
        yield started


@pytest.fixture(scope="module")
def clients(cloud: LocalCloud) -> Clients:
    return Clients.made_by(cloud.client)


@pytest.fixture(scope="module")
def deployed(clients: Clients) -> dict[str, str]:
    """Deploy the stack that the read-only tests share, and return its outputs."""
    return deploy_stack(clients, stack_name="shared", parameters=PARAMETERS)


class Steps(list[StackEvent]):
    """A list of the events that a deployment reports."""

    def of(self, resource: str) -> list[str]:
        return [step.status for step in self if step.resource == resource]


# --- deploying ---------------------------------------------------------------------------------------------------


def test_a_deployment_reports_its_steps_and_its_outputs(clients: Clients) -> None:
    steps = Steps()
    outputs = deploy_stack(clients, stack_name="first", parameters=PARAMETERS, on_event=steps.append)
    assert steps.of("UploadQueue") == ["CREATE_IN_PROGRESS", "CREATE_COMPLETE"]
    assert steps.of("first")[-1] == "CREATE_COMPLETE"
    assert outputs["LandingBucket"] != outputs["PublishedBucket"]
    assert outputs_of(find_stack(clients.cloudformation, "first")) == outputs


def test_every_output_has_a_value(deployed: dict[str, str]) -> None:
    assert [name for name, value in deployed.items() if not value] == []


def test_deploying_again_without_changes_changes_nothing(clients: Clients, deployed: dict[str, str]) -> None:
    steps = Steps()
    again = deploy_stack(clients, stack_name="shared", parameters=PARAMETERS, on_event=steps.append)
    assert (again, steps) == (deployed, [])


def test_a_parameter_that_is_left_out_keeps_its_value(clients: Clients) -> None:
    deploy_stack(clients, stack_name="keeping", parameters=PARAMETERS | {"MessagesPerTask": "7"})
    deploy_stack(clients, stack_name="keeping", parameters={"LiveBacklog": "9"})
    stack = clients.cloudformation.describe_stacks(StackName="keeping")["Stacks"][0]
    values = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    assert (values["MessagesPerTask"], values["LiveBacklog"], values["ImageUri"]) == ("7", "9", "sluice:local")


def test_a_changed_definition_reaches_the_state_machine_and_keeps_its_name(clients: Clients, cloud: LocalCloud) -> None:
    before = deploy_stack(clients, stack_name="updating", parameters=PARAMETERS)
    after = deploy_stack(
        clients, stack_name="updating", parameters={}, timeouts=Timeouts(task_seconds=77, drain_seconds=770)
    )
    machine = cloud.client("stepfunctions").describe_state_machine(stateMachineArn=after["StateMachineArn"])
    assert (
        json.loads(machine["definition"])["States"]["Launch"]["ItemProcessor"]["States"]["Drain the queue"][
            "TimeoutSeconds"
        ]
        == 77
    )
    assert after["StateMachineArn"] == before["StateMachineArn"]


def test_no_placeholder_is_left_in_a_deployed_definition(cloud: LocalCloud, deployed: dict[str, str]) -> None:
    machine = cloud.client("stepfunctions").describe_state_machine(stateMachineArn=deployed["StateMachineArn"])
    assert "${" not in machine["definition"]


def larger_template(folder: Path, section: str) -> Path:
    """Write a copy of the template with more outputs or resources than an inline template may contain, and return its
    path."""
    more = {
        "Outputs": "".join(f"  More{number}:\n    Value: {'x' * 100}\n" for number in range(150)),
        "Resources": "".join(
            f"  More{number}:\n    Type: AWS::SQS::Queue\n    Properties: {{RedriveAllowPolicy: {{x: {'x' * 200}}}}}\n"
            for number in range(60)
        ),
    }[section]
    path = folder / "template.yaml"
    path.write_text(TEMPLATE.read_text(encoding="utf-8").replace(f"\n{section}:\n", f"\n{section}:\n{more}", 1))
    assert len(template_body(path)) > MAX_INLINE_BYTES
    return path


def clients_of(cloud: LocalCloud, region: str) -> Clients:
    return Clients.made_by(partial(cloud.client, region_name=region))


def test_a_template_too_large_for_the_call_is_previewed_and_deployed(clients: Clients, tmp_path: Path) -> None:
    uploaded: list[str] = []
    large = larger_template(tmp_path, "Resources")
    deploy_stack(clients, stack_name="large", parameters=PARAMETERS)  # the artifact bucket exists from now on
    changes = preview_stack(clients, stack_name="large", parameters={}, template=large, on_upload=uploaded.append)
    assert Change("Add", "More1", "AWS::SQS::Queue", replaces=False) in changes
    (address,) = uploaded
    bucket, _, key = address.removeprefix("s3://").partition("/")
    assert bucket == artifact_bucket_name(ACCOUNT_ID, clients.s3.meta.region_name)
    assert clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() == template_body(large)
    deploy_stack(clients, stack_name="large", parameters={}, template=large)
    resources = clients.cloudformation.get_paginator("list_stack_resources").paginate(StackName="large")
    assert "More1" in {one["LogicalResourceId"] for page in resources for one in page["StackResourceSummaries"]}


def test_a_preview_before_the_artifact_bucket_exists_uploads_nothing(cloud: LocalCloud, tmp_path: Path) -> None:
    uploaded: list[str] = []
    ours = clients_of(cloud, "us-west-2")
    large = larger_template(tmp_path, "Outputs")
    changes = preview_stack(ours, stack_name="new", parameters=PARAMETERS, template=large, on_upload=uploaded.append)
    assert Change("Add", "UploadQueue", "AWS::SQS::Queue", replaces=False) in changes
    assert uploaded == []
    assert artifact_bucket_name(ACCOUNT_ID, "us-west-2") not in bucket_names(ours)
    assert Stack(ours.cloudformation, "new", print).find() is None
    with pytest.raises(TemplateTooLarge):
        preview_stack(ours, stack_name="new", parameters=PARAMETERS, template=larger_template(tmp_path, "Resources"))


def test_changes_are_shown_before_they_are_made(clients: Clients) -> None:
    shown: list[Change] = []

    def disagree(changes: Sequence[Change]) -> bool:
        shown.extend(changes)
        return False

    with pytest.raises(ChangesDeclined):
        deploy_stack(clients, stack_name="declined", parameters=PARAMETERS, agree_to=disagree)
    assert Change("Add", "UploadQueue", "AWS::SQS::Queue", replaces=False) in shown
    assert Stack(clients.cloudformation, "declined", print).find() is None
    assert deploy_stack(clients, stack_name="declined", parameters=PARAMETERS)["QueueUrl"]


# --- rejected before anything is created -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Upper", "1st", "under_score", "a" * 33, "", "dot.ted", "hyphen-"])
def test_a_stack_name_that_no_bucket_or_repository_could_have_is_rejected(clients: Clients, name: str) -> None:
    with pytest.raises(StackNameInvalid):
        deploy_stack(clients, stack_name=name, parameters=PARAMETERS)


def test_a_parameter_that_does_not_exist_is_named(clients: Clients) -> None:
    with pytest.raises(ChangesRefused) as raised:
        deploy_stack(clients, stack_name="wrong", parameters=PARAMETERS | {"MaxAtempts": "3"})
    assert "MaxAtempts" in str(raised.value)
    assert Stack(clients.cloudformation, "wrong", print).find() is None


def test_a_required_parameter_that_is_missing_is_named(clients: Clients) -> None:
    with pytest.raises(ChangesRefused) as raised:
        deploy_stack(clients, stack_name="wrong", parameters={"PrefectApiUrl": "http://127.0.0.1:4200/api"})
    assert "ImageUri" in str(raised.value)


def test_a_value_out_of_bounds_is_rejected(clients: Clients) -> None:
    with pytest.raises(ChangesRefused) as raised:
        deploy_stack(clients, stack_name="bounds", parameters=PARAMETERS | {"MaxConcurrentTasks": "101"})
    assert "MaxConcurrentTasks" in str(raised.value)


def test_subnets_without_security_groups_are_rejected(clients: Clients) -> None:
    with pytest.raises(ChangesRefused) as raised:
        deploy_stack(clients, stack_name="half", parameters=PARAMETERS | {"SubnetIds": "subnet-1,subnet-2"})
    assert "SecurityGroupIds" in str(raised.value)


def test_an_invalid_template_is_rejected(clients: Clients, tmp_path: Path) -> None:
    nonsense = tmp_path / "template.yaml"
    nonsense.write_text("Resources: !Nonsense {}\n")
    with pytest.raises(ChangesRefused):
        deploy_stack(clients, stack_name="nonsense", parameters=PARAMETERS, template=nonsense)


def test_an_artifact_bucket_of_another_account_is_not_used(cloud: LocalCloud) -> None:
    region = "eu-west-1"
    stranger = cloud.client("s3", region_name=region, aws_access_key_id="111111111111", aws_secret_access_key="test")
    name = artifact_bucket_name(ACCOUNT_ID, region)
    stranger.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
    ours = clients_of(cloud, region)
    with pytest.raises(ArtifactBucketUnusable):
        deploy_stack(ours, stack_name="stranger", parameters=PARAMETERS)


class Sts:
    """An STS client that raises an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_caller_identity(self) -> dict[str, str]:
        raise self._error


_EXPIRED = {"Error": {"Code": "ExpiredToken"}, "ResponseMetadata": {"HTTPStatusCode": 403}}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NoCredentialsError(), CredentialsMissing),
        (ClientError(_EXPIRED, "GetCallerIdentity"), CredentialsExpired),  # type: ignore[arg-type]
        (EndpointConnectionError(endpoint_url="https://sts.amazonaws.com"), RegionUnusable),
    ],
)
def test_an_error_of_aws_names_its_cause_and_nothing_is_created(
    clients: Clients, error: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        deploy_stack(replace(clients, sts=Sts(error)), stack_name="nobody", parameters=PARAMETERS)
    assert Stack(clients.cloudformation, "nobody", print).find() is None


# --- failed deployments --------------------------------------------------------------------------------------------


def test_a_failed_creation_gives_the_reason_and_its_stack_must_be_deleted_first(
    clients: Clients, tmp_path: Path
) -> None:
    failing = tmp_path / "template.yaml"
    failing.write_text(FAILING)
    with pytest.raises(StackFailed) as raised:
        deploy_stack(clients, stack_name="failing", parameters={}, template=failing)
    assert raised.value.status == "ROLLBACK_COMPLETE"
    first = raised.value.failures[0]
    assert (first.resource, first.resource_type) == ("Machine", "AWS::StepFunctions::StateMachine")
    assert first.reason
    with pytest.raises(StackUnusable):
        deploy_stack(clients, stack_name="failing", parameters={}, template=failing)
    delete_stack(clients, stack_name="failing")
    assert deploy_stack(clients, stack_name="failing", parameters=PARAMETERS)["QueueUrl"]


def test_a_failed_update_is_rolled_back_and_the_next_one_works(clients: Clients, tmp_path: Path) -> None:
    before = deploy_stack(clients, stack_name="undone", parameters=PARAMETERS)
    spoilt = tmp_path / "template.yaml"
    spoilt.write_text(TEMPLATE.read_text(encoding="utf-8").replace("Key: !Ref DrainDefinitionKey", "Key: missing"))
    with pytest.raises(StackFailed) as raised:
        deploy_stack(clients, stack_name="undone", parameters={}, template=spoilt)
    assert raised.value.status == "UPDATE_ROLLBACK_COMPLETE"
    assert "DrainMachine" in raised.value.failures[0].resource
    assert outputs_of(find_stack(clients.cloudformation, "undone")) == before
    assert deploy_stack(clients, stack_name="undone", parameters={"SettleSeconds": "31"}) == before


class CloudFormationIn:
    """A CloudFormation client whose only stack has the given status, which a stack in the AWS emulator has too briefly
    to be observed."""

    def __init__(self, status: str) -> None:
        self._summary = {"StackName": "busy", "StackStatus": status, "StackId": "arn:stack/busy"}

    def describe_stacks(self, **_: object) -> dict[str, Any]:
        return {"Stacks": [self._summary]}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("UPDATE_IN_PROGRESS", StackBusy),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", StackBusy),
        ("DELETE_IN_PROGRESS", StackBusy),
        ("ROLLBACK_FAILED", StackUnusable),
        ("DELETE_FAILED", StackUnusable),
        ("UPDATE_ROLLBACK_FAILED", StackUnusable),
    ],
)
def test_a_stack_that_cannot_be_updated_now_is_reported(status: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Stack(CloudFormationIn(status), "busy", print).apply({}, {}, lambda _: True)


# --- tags and retention ----------------------------------------------------------------------------------------


def test_tags_are_set_on_resources_and_stay_until_others_are_given(clients: Clients, cloud: LocalCloud) -> None:
    outputs = deploy_stack(clients, stack_name="tagged", parameters=PARAMETERS, tags={"cost-center": "4711"})

    def tags_of_queue() -> str | None:
        tags: dict[str, str] = cloud.client("sqs").list_queue_tags(QueueUrl=outputs["QueueUrl"])["Tags"]
        return tags.get("cost-center")

    assert tags_of_queue() == "4711"
    logs = cloud.client("logs").list_tags_log_group(logGroupName=outputs["TaskLogGroup"])["tags"]
    images = cloud.client("ecr").describe_repositories(repositoryNames=["tagged/drain"])["repositories"][0]
    ecr = cloud.client("ecr").list_tags_for_resource(resourceArn=images["repositoryArn"])["tags"]
    assert logs["cost-center"] == "4711"
    assert {"Key": "cost-center", "Value": "4711"} in ecr
    deploy_stack(clients, stack_name="tagged", parameters={"LiveBacklog": "9"})
    assert tags_of_queue() == "4711"
    deploy_stack(clients, stack_name="tagged", parameters={}, tags={"cost-center": "4712"})
    assert tags_of_queue() == "4712"


def test_the_artifact_bucket_has_the_tags_of_the_deployment_that_creates_it(clients: Clients) -> None:
    upload_artifacts(
        clients.s3, "sluice-tagged", (), account_id=ACCOUNT_ID, region="eu-central-1", tags={"team": "data"}
    )
    assert clients.s3.get_bucket_tagging(Bucket="sluice-tagged")["TagSet"] == [{"Key": "team", "Value": "data"}]


def test_a_retention_of_uploads_is_rejected_for_a_bucket_that_is_not_the_stacks(
    clients: Clients, own_bucket: str
) -> None:
    parameters = PARAMETERS | {"ExistingLandingBucket": own_bucket}
    with pytest.raises(RetentionElsewhere, match="orders"):
        deploy_stack(
            clients, stack_name="elsewhere", parameters=parameters, retentions={"orders": Retention(uploads=30)}
        )
    assert find_stack(clients.cloudformation, "elsewhere") is None


# --- an existing landing bucket --------------------------------------------------------------------------------


@pytest.fixture
def own_bucket(clients: Clients, request: pytest.FixtureRequest) -> str:
    """Create a user's bucket that already sends its events to EventBridge, and return its name."""
    name = f"own-{request.node.name.replace('_', '-')}"[:63].strip("-")
    clients.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    clients.s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={"EventBridgeConfiguration": {}},
    )
    return name


def test_an_existing_bucket_is_watched_and_keeps_its_other_notifications(clients: Clients, own_bucket: str) -> None:
    parameters = PARAMETERS | {"ExistingLandingBucket": own_bucket}
    for _ in range(2):
        outputs = deploy_stack(clients, stack_name="existing", parameters=parameters)
    notification = clients.s3.get_bucket_notification_configuration(Bucket=own_bucket)
    (watched,) = notification["LambdaFunctionConfigurations"]
    assert watched["LambdaFunctionArn"] == outputs["TriggerFunctionArn"]
    assert watched["Filter"]["Key"]["FilterRules"][0]["Value"] == "incoming/"
    assert "EventBridgeConfiguration" in notification
    assert outputs["LandingBucket"] == own_bucket


def test_deleting_the_stack_leaves_an_existing_bucket_as_it_was(clients: Clients, own_bucket: str) -> None:
    before = clients.s3.get_bucket_notification_configuration(Bucket=own_bucket)
    deploy_stack(clients, stack_name="leaving", parameters=PARAMETERS | {"ExistingLandingBucket": own_bucket})
    clients.s3.put_object(Bucket=own_bucket, Key="incoming/a.csv", Body=b"a\n1\n")
    delete_stack(clients, stack_name="leaving", delete_data=True)
    after = clients.s3.get_bucket_notification_configuration(Bucket=own_bucket)
    assert {**after, "ResponseMetadata": None} == {**before, "ResponseMetadata": None}
    assert clients.s3.get_object(Bucket=own_bucket, Key="incoming/a.csv")["Body"].read() == b"a\n1\n"


# --- deleting --------------------------------------------------------------------------------------------------------


def bucket_names(clients: Clients) -> set[str]:
    return {bucket["Name"] for bucket in clients.s3.list_buckets()["Buckets"]}


def test_an_existing_bucket_that_is_gone_does_not_block_the_deletion(clients: Clients, own_bucket: str) -> None:
    deploy_stack(clients, stack_name="gone", parameters=PARAMETERS | {"ExistingLandingBucket": own_bucket})
    clients.s3.delete_bucket(Bucket=own_bucket)
    delete_stack(clients, stack_name="gone")
    assert Stack(clients.cloudformation, "gone", print).find() is None


def test_deleting_keeps_the_data_and_says_where_it_is(clients: Clients) -> None:
    outputs = deploy_stack(clients, stack_name="keeps", parameters=PARAMETERS)
    steps = Steps()
    left = delete_stack(clients, stack_name="keeps", on_event=steps.append)
    assert set(left) == {outputs["LandingBucket"], outputs["PublishedBucket"]} <= bucket_names(clients)
    assert steps.of("UploadQueue")[-1] == "DELETE_COMPLETE"


def test_a_stack_can_be_created_again_beside_the_data_of_its_predecessor(clients: Clients) -> None:
    first = deploy_stack(clients, stack_name="again", parameters=PARAMETERS)
    delete_stack(clients, stack_name="again")
    second = deploy_stack(clients, stack_name="again", parameters=PARAMETERS)
    assert first["LandingBucket"] != second["LandingBucket"]


def test_data_is_deleted_if_that_is_requested(clients: Clients) -> None:
    outputs = deploy_stack(clients, stack_name="forgets", parameters=PARAMETERS)
    for body in (b"1", b"2"):
        clients.s3.put_object(Bucket=outputs["PublishedBucket"], Key="data/x", Body=body)
    clients.s3.delete_object(Bucket=outputs["PublishedBucket"], Key="data/x")
    assert delete_stack(clients, stack_name="forgets", delete_data=True) == ()
    assert not {outputs["LandingBucket"], outputs["PublishedBucket"]} & bucket_names(clients)


def test_a_stack_that_is_being_changed_is_not_deleted() -> None:
    stack = Stack(CloudFormationIn("UPDATE_IN_PROGRESS"), "busy", print)
    summary = stack.find()
    assert summary is not None
    with pytest.raises(StackBusy):
        stack.delete(summary)


def test_deleting_a_stack_that_is_not_there_is_no_error(clients: Clients) -> None:
    assert delete_stack(clients, stack_name="never-made") == ()
