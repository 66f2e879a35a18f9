"""Tests that each reason why a deployment cannot succeed raises an error that names it, if possible before anything is
created."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, InvalidRegionError, SSOTokenLoadError
from rich.console import Console

from blocks.aws_errors import (
    AwsRefused,
    AwsUnavailable,
    CredentialsExpired,
    CredentialsInvalid,
    CredentialsMissing,
    ProfileUnknown,
    QuotaReached,
    RegionUnset,
    RegionUnusable,
    explain_aws_error,
)
from deployment import PROJECT_ROOT
from deployment.aws import images
from deployment.aws.access import aws_access, environment_for
from deployment.aws.deploy_stack import Clients, deploy_stack
from deployment.aws.environments import (
    FOLDER,
    Environment,
    EnvironmentInvalid,
    EnvironmentUnknown,
    load_environment,
)
from deployment.aws.images import (
    ContainerEngineMissing,
    Engine,
    ImageBuildFailed,
    ImageElsewhere,
    ImageNotPushed,
    Recipe,
)
from deployment.aws.stack import (
    Change,
    Stack,
    StackBusy,
    StackEvent,
    StackFailed,
    StackUnusable,
)
from deployment.commands.deploy import AccountUnexpected, DeploymentDeclined, DeployOptions, deploy
from deployment.commands.deploy_show import show_changes
from deployment.deployed_stack import StackMissing, selected_stack
from deployment.environment_variables import only
from deployment.local.cloud import LocalCloud
from deployment.local.environment import aws_environment
from deployment.local.ports import free_port
from deployment.prefect_setup.access import PrefectAccess, prefect_access
from deployment.prefect_setup.setup import (
    PrefectSetupFailed,
    PrefectUnauthorised,
    PrefectUnreachable,
    check_prefect,
    register_stack,
)
from deployment.stack_options import StackOptionMissing, StackSelection

pytestmark = pytest.mark.cloud

ACCOUNT_ID = "000000000000"
_NOBODY = {
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_SOMEBODY = {**_NOBODY, "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), with_prefect=False) as started:
        yield started


@pytest.fixture
def users(cloud: LocalCloud) -> dict[str, str]:
    """Return a user's environment variables, with which the local cloud takes the place of AWS."""
    return aws_environment(cloud.endpoints.aws_endpoint_url, cloud.region)


@contextmanager
def answering(status: int, body: str = "{}") -> Iterator[str]:
    """Run a server that gives the same response to every POST request, and yield its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def options(environment: Environment, **more: Any) -> DeployOptions:
    given: dict[str, Any] = {
        "environment": environment,
        "dry_run": False,
        "skip_prefect": True,
        "smoke_test": False,
        "smoke_test_seconds": 1.0,
        "home": Path("unused"),
    }
    return DeployOptions(**given | more)


# --- credentials and region --------------------------------------------------------------------------------------


def identify(users: dict[str, str], **where: str | None) -> str:
    with aws_access(users, **{"region": None, "profile": None} | where) as access:
        return access.account_id


def test_missing_credentials_are_reported() -> None:
    with pytest.raises(CredentialsMissing):
        identify(_NOBODY, region="eu-central-1")


def test_a_profile_that_is_not_configured_is_reported() -> None:
    with pytest.raises(ProfileUnknown):
        identify(_SOMEBODY, region="eu-central-1", profile="production")


def test_a_missing_region_is_reported() -> None:
    with pytest.raises(RegionUnset):
        identify(_SOMEBODY)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ExpiredToken", CredentialsExpired),
        ("InvalidClientTokenId", CredentialsInvalid),
        ("SignatureDoesNotMatch", CredentialsInvalid),
        ("AccessDenied", AwsRefused),
    ],
)
def test_expired_invalid_and_unauthorized_credentials_are_distinguished(code: str, expected: type[Exception]) -> None:
    """The responses have the form of STS: docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html"""
    answer = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>No.</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
    with answering(403, answer) as address, pytest.raises(expected):
        identify({**_SOMEBODY, "AWS_ENDPOINT_URL": address}, region="eu-central-1")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EndpointConnectionError(endpoint_url="https://sts.eu-centrall-1.amazonaws.com"), RegionUnusable),
        (InvalidRegionError(region_name="eu central 1"), RegionUnusable),
        (SSOTokenLoadError(profile_name="x", error_msg="expired"), CredentialsExpired),
        (ClientError({"Error": {"Code": "LimitExceededException"}}, "CreateChangeSet"), QuotaReached),
        (ClientError({"Error": {"Code": "Throttling"}}, "DescribeStacks"), AwsUnavailable),
    ],
)
def test_an_error_of_boto3_becomes_the_error_that_names_its_cause(error: Any, expected: type[Exception]) -> None:
    assert type(explain_aws_error(error, "deploying")) is expected


def test_a_requested_profile_takes_precedence_over_keys_in_the_environment() -> None:
    environment = environment_for(_SOMEBODY, region="eu-west-1", profile="production")
    assert environment["AWS_PROFILE"] == "production"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & set(environment)


def test_a_permission_that_is_missing_is_named(cloud: LocalCloud, users: dict[str, str]) -> None:
    iam = cloud.client("iam")
    iam.create_user(UserName="guest")
    key = iam.create_access_key(UserName="guest")["AccessKey"]
    guest = users | {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    environment = Environment(stack="forbidden", parameters={"PrefectApiUrl": "http://127.0.0.1:1/api"})
    with pytest.raises(AwsRefused) as raised:
        deploy(Console(quiet=True), options(environment), guest, lambda _: True)
    assert "cloudformation:DescribeStacks" in str(raised.value)


def test_a_deployment_to_another_account_than_the_environments_is_rejected(users: dict[str, str]) -> None:
    environment = Environment(stack="elsewhere", account="123456789012")
    with pytest.raises(AccountUnexpected):
        deploy(Console(quiet=True), options(environment), users, lambda _: True)


# --- the selected stack --------------------------------------------------------------------------------------------


def test_a_stack_that_does_not_exist_is_reported(users: dict[str, str], tmp_path: Path) -> None:
    with (
        pytest.raises(StackMissing),
        selected_stack(StackSelection(stack="nowhere"), tmp_path, users),
    ):
        pass


def test_a_region_without_a_stack_is_rejected() -> None:
    with pytest.raises(StackOptionMissing):
        StackSelection(region="eu-central-1")


def test_the_access_to_prefect_comes_from_secrets_manager_and_not_from_the_environment(
    cloud: LocalCloud, users: dict[str, str]
) -> None:
    arn = cloud.client("secretsmanager").create_secret(Name="auth", SecretString="user:pass")["ARN"]
    with only(users | {"PREFECT_API_KEY": "a key for another server"}):
        access = prefect_access({"PrefectApiUrl": "http://p/api", "PrefectAuthStringSecretArn": arn})
    assert (access.api_key, access.auth_string) == ("", "user:pass")
    assert access.headers == {"Authorization": "Basic dXNlcjpwYXNz"}
    assert "pass" not in repr(access)


# --- the environment file ------------------------------------------------------------------------------------------


def test_the_example_environment_is_valid() -> None:
    assert load_environment("example").parameters["PrefectApiUrl"].startswith("https://")
    assert (FOLDER / "example.yaml").exists()


def test_an_unknown_environment_names_the_known_ones() -> None:
    with pytest.raises(EnvironmentUnknown) as raised:
        load_environment("exmaple")
    assert "'example'" in str(raised.value)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("regoin: eu-central-1", "regoin"),
        ("account: 12", "account"),
        ("parameters: {ImageUri: x}", "ImageUri"),
        ("- a list", "the file"),
        ("stack: [", ""),
    ],
)
def test_the_error_about_an_invalid_environment_names_file_and_field(written: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(written)
    with pytest.raises(EnvironmentInvalid) as raised:
        load_environment(str(file))
    assert str(file) in str(raised.value)
    assert named in str(raised.value)


def test_numbers_booleans_and_lists_become_strings_for_cloudformation(tmp_path: Path) -> None:
    file = tmp_path / "right.yaml"
    file.write_text("parameters: {MaxReceiveCount: 3, UseSpot: true, SubnetIds: [subnet-1, subnet-2]}")
    assert load_environment(str(file)).parameters == {
        "MaxReceiveCount": "3",
        "UseSpot": "true",
        "SubnetIds": "subnet-1,subnet-2",
    }


# --- the stack -----------------------------------------------------------------------------------------------------


class Events:
    """A CloudFormation client whose stack has no events at first, and then those of a failure and of a rollback."""

    def __init__(self, reason: str) -> None:
        self._events = [
            _event("stack", "arn:stack", "UPDATE_ROLLBACK_COMPLETE", "", "2"),
            _event("Thing", "thing", "CREATE_FAILED", reason, "1"),
        ]
        self._told = False

    def get_paginator(self, _: str) -> Events:
        return self

    def paginate(self, **_: object) -> list[dict[str, Any]]:
        seen, self._told = self._told, True
        return [{"StackEvents": self._events if seen else []}]

    def describe_stacks(self, **_: object) -> dict[str, Any]:
        return {"Stacks": [{"StackStatus": "UPDATE_ROLLBACK_COMPLETE"}]}

    def delete_stack(self, **_: object) -> None:
        pass


def _event(resource: str, physical: str, status: str, reason: str, number: str) -> dict[str, str]:
    return {
        "EventId": number,
        "LogicalResourceId": resource,
        "PhysicalResourceId": physical,
        "ResourceType": "AWS::X::Y",
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
    }


@pytest.mark.parametrize(
    "reason",
    [
        'Resource handler returned message: "x already exists" (RequestToken: 1, HandlerErrorCode: AlreadyExists)',
        "User: arn:aws:iam::1:user/x is not authorized to perform: iam:CreateRole on resource: *",
    ],
)
def test_a_resource_that_failed_is_shown_as_cloudformation_reports_it(reason: str) -> None:
    stack = Stack(Events(reason), "sluice", lambda _: None)
    with pytest.raises(StackFailed) as raised:
        stack.delete({"StackStatus": "CREATE_COMPLETE", "StackId": "arn:stack"})
    assert raised.value.status == "UPDATE_ROLLBACK_COMPLETE"
    assert raised.value.failures == (StackEvent("Thing", "AWS::X::Y", "CREATE_FAILED", reason),)
    assert f"Thing (AWS::X::Y): {reason}" in str(raised.value)


class Busy:
    """A CloudFormation client whose stack is being changed by another user. The change ends after a number of polls."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def describe_stacks(self, **_: object) -> dict[str, Any]:
        self._looks -= 1
        status = "UPDATE_IN_PROGRESS" if self._looks >= 0 else "UPDATE_COMPLETE"
        return {"Stacks": [{"StackName": "sluice", "StackStatus": status, "StackId": "arn"}]}


def test_another_users_operation_is_reported_once_and_waited_for() -> None:
    said: list[str] = []
    assert Stack(Busy(1), "sluice", lambda _: None).wait_while_busy(said.append) == "UPDATE_COMPLETE"
    assert said == ["UPDATE_IN_PROGRESS"]


def test_an_operation_that_does_not_end_is_not_waited_for_forever() -> None:
    with pytest.raises(StackBusy):
        Stack(Busy(1_000_000), "sluice", lambda _: None).wait_while_busy(lambda _: None, deadline_seconds=0.05)


def test_a_taken_bucket_name_fails_the_creation_and_rolls_it_back(cloud: LocalCloud, tmp_path: Path) -> None:
    stranger = cloud.client("s3", aws_access_key_id="111111111111", aws_secret_access_key="test")
    stranger.create_bucket(Bucket="taken-by-another", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    template = tmp_path / "template.yaml"
    names = ("ArtifactBucket", "LambdaCodeKey", "DrainDefinitionKey")
    template.write_text(
        "Parameters:\n"
        + "".join(f"  {name}: {{Type: String}}\n" for name in names)
        + "Resources:\n  Bucket:\n    Type: AWS::S3::Bucket\n    Properties: {BucketName: taken-by-another}\n"
    )
    clients = Clients.made_by(cloud.client)
    with pytest.raises(StackFailed) as raised:
        deploy_stack(clients, stack_name="taken", parameters={}, template=template)
    assert raised.value.status == "ROLLBACK_COMPLETE"
    assert "Bucket" in {failure.resource for failure in raised.value.failures}


def test_a_stack_in_rollback_complete_is_deleted_only_if_the_user_agrees(
    cloud: LocalCloud, users: dict[str, str], tmp_path: Path
) -> None:
    template = tmp_path / "template.yaml"
    names = ("ArtifactBucket", "LambdaCodeKey", "DrainDefinitionKey")
    template.write_text(
        "Parameters:\n"
        + "".join(f"  {name}: {{Type: String}}\n" for name in names)
        + "Resources:\n  Machine:\n    Type: AWS::StepFunctions::StateMachine\n    Properties:\n"
        "      RoleArn: !Sub 'arn:aws:iam::${AWS::AccountId}:role/run'\n"
        "      DefinitionS3Location: {Bucket: !Ref ArtifactBucket, Key: missing.json}\n"
    )
    clients = Clients.made_by(cloud.client)
    with pytest.raises(StackFailed):
        deploy_stack(clients, stack_name="rolled-back", parameters={}, template=template)
    asked: list[str] = []

    def refuse(question: str) -> bool:
        asked.append(question)
        return False

    environment = Environment(stack="rolled-back", parameters={"PrefectApiUrl": "http://127.0.0.1:1/api"})
    with pytest.raises(DeploymentDeclined):
        deploy(Console(quiet=True), options(environment), users, refuse)
    assert len(asked) == 1
    with pytest.raises(StackUnusable):
        deploy(Console(quiet=True), options(environment, dry_run=True), users, refuse)


def test_a_change_set_says_what_is_replaced() -> None:
    with Console(width=40, soft_wrap=True, record=True, file=open("/dev/null", "w")) as console:  # noqa: PTH123
        show_changes(
            console,
            [
                Change("Modify", "Queue", "AWS::SQS::Queue", replaces=True, what=("QueueName",)),
                Change("Modify", "Task", "AWS::ECS::TaskDefinition", replaces=False, may_replace=True),
                Change("Remove", "Alarm", "AWS::CloudWatch::Alarm", replaces=False),
            ],
        )
    shown = console.export_text()
    assert "Changes: 2 to modify, 1 to remove" in shown
    assert "REPLACED  QueueName" in shown
    assert "may be replaced" in shown


# --- the image -------------------------------------------------------------------------------------------------------


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_missing_container_engine_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ContainerEngineMissing):
        images.find_engine()


def test_a_docker_without_its_daemon_is_skipped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "docker", "exit 1")
    with pytest.raises(ContainerEngineMissing) as raised:
        images.find_engine()
    assert raised.value.silent == ("docker",)
    program(tmp_path, "podman", "exit 0")
    assert images.find_engine().name == "podman"


def test_a_build_that_fails_shows_the_end_of_its_output(tmp_path: Path) -> None:
    program(tmp_path, "docker", "echo no space left on device; exit 1")
    with pytest.raises(ImageBuildFailed) as raised:
        images.build(Engine("docker", str(tmp_path / "docker")), Recipe("X86_64", {}), "sluice:1")
    assert "no space left on device" in str(raised.value)


@pytest.mark.parametrize("reference", [":never", f"@sha256:{'0' * 64}"])
def test_an_image_that_was_not_pushed_is_reported_before_a_stack_is_created(
    cloud: LocalCloud, users: dict[str, str], reference: str
) -> None:
    uri = f"{ACCOUNT_ID}.dkr.ecr.eu-central-1.amazonaws.com/unpushed/drain{reference}"
    parameters = {"PrefectApiUrl": "http://127.0.0.1:1/api"}
    environment = Environment(stack="unpushed", image=uri, parameters=parameters)
    with pytest.raises(ImageNotPushed):
        deploy(Console(quiet=True), options(environment), users, lambda _: True)
    assert Stack(cloud.client("cloudformation"), "unpushed", lambda _: None).find() is None


@pytest.mark.parametrize(
    "repository",
    [
        f"{ACCOUNT_ID}.dkr.ecr.eu-central-1.amazonaws.com/another/drain",
        f"{ACCOUNT_ID}.dkr.ecr.eu-west-1.amazonaws.com/foreign/drain",
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com/foreign/drain",
    ],
    ids=["another repository", "another region", "another account"],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_an_image_that_the_stacks_tasks_cannot_pull_is_rejected_before_a_stack_is_created(
    cloud: LocalCloud, users: dict[str, str], repository: str, dry_run: bool
) -> None:
    """The execution role may read only the stack's repository, so the stack would be created but no task could
    start."""
    parameters = {"PrefectApiUrl": "http://127.0.0.1:1/api"}
    environment = Environment(stack="foreign", image=f"{repository}:1", parameters=parameters)
    with pytest.raises(ImageElsewhere):
        deploy(Console(quiet=True), options(environment, dry_run=dry_run), users, lambda _: True)
    assert Stack(cloud.client("cloudformation"), "foreign", lambda _: None).find() is None


@pytest.mark.parametrize("uri", ["public.ecr.aws/somebody/sluice:1", "registry.example/sluice:1", "sluice:local"])
def test_the_uri_of_an_image_in_another_registry_stays_as_it_is(cloud: LocalCloud, uri: str) -> None:
    own = {"stack_name": "sluice", "account_id": ACCOUNT_ID, "region": "eu-central-1"}
    assert images.resolve_image(cloud.client("ecr"), uri, **own) == uri


def test_the_tag_depends_on_what_the_image_is_built_from_and_on_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "container").mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "container" / "Dockerfile").write_text(
        "FROM x AS build\nCOPY code /app/code\nCOPY --from=build /a /a\n"
    )
    (tmp_path / "code" / "one.py").write_text("1")
    tag = Recipe("X86_64", {}, tmp_path).tag
    (tmp_path / "other.py").write_text("not in the image")
    (tmp_path / "code" / "__pycache__").mkdir()
    (tmp_path / "code" / "__pycache__" / "one.pyc").write_text("nor this")
    assert Recipe("X86_64", {}, tmp_path).tag == tag
    (tmp_path / "code" / "one.py").write_text("2")
    tags = {
        tag,
        Recipe("X86_64", {}, tmp_path).tag,
        Recipe("ARM64", {}, tmp_path).tag,
        Recipe("X86_64", {"BASE_IMAGE": "y"}, tmp_path).tag,
    }
    assert len(tags) == 4


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_a_real_engine_builds_and_pushes_to_the_registry(cloud: LocalCloud, name: str, tmp_path: Path) -> None:
    """The image is built FROM scratch, so no base image is needed."""
    try:
        engine = images.find_engine([name])
    except ContainerEngineMissing as error:
        pytest.skip(str(error))
    (tmp_path / "container").mkdir()
    (tmp_path / "app.txt").write_text("code")
    (tmp_path / "container" / "Dockerfile").write_text("FROM scratch\nCOPY app.txt /app/app.txt\n")
    ecr = cloud.client("ecr")
    repository = ecr.create_repository(repositoryName=f"{name}/drain")["repository"]["repositoryUri"]
    recipe = Recipe("X86_64", {}, tmp_path)
    try:
        images.build(engine, recipe, f"{repository}:{recipe.tag}")
    except ImageBuildFailed as error:
        pytest.skip(f"{name} cannot build on this machine: {str(error)[-300:]}")
    images.push(engine, ecr, repository, recipe.tag)
    digest = images.find_digest(ecr, f"{name}/drain", {"imageTag": recipe.tag})
    assert digest is not None
    resolved = images.resolve_image(
        ecr,
        f"{ACCOUNT_ID}.dkr.ecr.eu-central-1.amazonaws.com/{name}/drain:{recipe.tag}",
        stack_name=name,
        account_id=ACCOUNT_ID,
        region="eu-central-1",
    )
    assert resolved.endswith(f"{name}/drain@{digest}")
    subprocess.run([engine.path, "rmi", "--force", f"{repository}:{recipe.tag}"], capture_output=True, check=False)


# --- Prefect ---------------------------------------------------------------------------------------------------------


def test_an_unreachable_prefect_is_reported_before_a_stack_is_created(cloud: LocalCloud, users: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    environment = Environment(stack="unseen", image="registry.example/sluice:1", parameters={"PrefectApiUrl": url})
    with pytest.raises(PrefectUnreachable):
        deploy(Console(quiet=True), options(environment, skip_prefect=False), users, lambda _: True)
    assert Stack(cloud.client("cloudformation"), "unseen", lambda _: None).find() is None


@pytest.mark.parametrize(
    ("status", "access", "expected"),
    [
        (401, PrefectAccess("", api_key="k"), PrefectUnauthorised),
        (403, PrefectAccess(""), PrefectUnauthorised),
        (404, PrefectAccess(""), PrefectUnreachable),
    ],
)
def test_an_api_that_rejects_the_key_is_distinguished_from_one_that_is_not_prefects(
    status: int, access: PrefectAccess, expected: type[Exception]
) -> None:
    with answering(status) as address, pytest.raises(expected):
        check_prefect(PrefectAccess(f"{address}/api", api_key=access.api_key))


def test_a_prefect_that_is_unreachable_after_the_deployment_is_reported(users: dict[str, str], tmp_path: Path) -> None:
    prefect = PrefectAccess(f"http://127.0.0.1:{free_port()}/api")
    with only(users), pytest.raises(PrefectSetupFailed):
        register_stack(prefect, "sluice", region="eu-central-1", home=tmp_path)


def test_the_url_of_prefect_clouds_pages_follows_from_its_api_url() -> None:
    access = PrefectAccess("https://api.prefect.cloud/api/accounts/A/workspaces/W")
    assert access.ui_url == "https://app.prefect.cloud/account/A/workspace/W"


# --- questions without a terminal ------------------------------------------------------------------------------------


def test_a_question_without_a_terminal_counts_as_no(cloud: LocalCloud, users: dict[str, str]) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deployment.cli", "deploy", "--stack", "unasked", "--skip-prefect"),
            *("--image", "registry.example/sluice:1", "--parameter", "PrefectApiUrl=http://127.0.0.1:1/api"),
        ],
        cwd=PROJECT_ROOT,
        env={"PATH": "/usr/bin:/bin", **users},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    assert "use --yes to answer yes" in done.stderr
    assert Stack(cloud.client("cloudformation"), "unasked", lambda _: None).find() is None
