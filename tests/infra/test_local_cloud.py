"""Tests of the running local cloud: its isolation from the user's configuration, its tasks, their permissions, the logs
of Lambda, and its start, failure and restart."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from deployment.local import cloud as cloud_module
from deployment.local.cloud import LocalCloud
from deployment.local.errors import LocalCloudBusy, PortTaken, ServiceDied
from deployment.local.ports import free_port
from deployment.local.processes import recorded
from tests.emulator.records import EXTENSIONS, decisions_of
from tests.forking import forking
from tests.infra.waiting import eventually

pytestmark = pytest.mark.cloud

_SOON_SECONDS = 30.0
ACCOUNT = "000000000000"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "*"}, "Action": "sts:AssumeRole"}],
}
# A task that makes the given call to S3. Its exit code is 3 if S3 rejects the call.
_S3_TASK = """
import boto3, sys
from botocore.exceptions import ClientError
s3 = boto3.client("s3")
try:
    {call}
except ClientError as error:
    print("refused:", error.response["Error"]["Code"], flush=True)
    sys.exit(3)
"""


@pytest.fixture(scope="module")
def user_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("user-home")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, user_home: Path) -> Iterator[LocalCloud]:
    """Start a local cloud as a user whose configuration would break everything if it were used."""
    with pytest.MonkeyPatch.context() as user:
        user.setenv("HOME", str(user_home))
        user.setenv("AWS_PROFILE", "production")
        user.setenv("AWS_ACCESS_KEY_ID", "AKIAUSERSOWNKEY")
        user.setenv("AWS_SECRET_ACCESS_KEY", "users-own-secret")
        user.setenv("AWS_SESSION_TOKEN", "users-own-token")
        user.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        user.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
        user.setenv("PREFECT_HOME", str(user_home / "prefect"))
        user.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        user.setenv("http_proxy", "http://127.0.0.1:1")
        with LocalCloud(tmp_path_factory.mktemp("cloud"), wait_scale=0.05, emulator_extensions=EXTENSIONS) as cloud:
            yield cloud


# --- helpers that create roles, tasks and state machines ----------------------------------------------------


def bucket(cloud: LocalCloud, name: str) -> None:
    s3 = cloud.client("s3")
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": cloud.region})


def role(cloud: LocalCloud, name: str, *statements: dict[str, Any]) -> str:
    iam = cloud.client("iam")
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST))["Role"]["Arn"]
    if statements:
        allow(cloud, name, *statements)
    return arn


def allow(cloud: LocalCloud, name: str, *statements: dict[str, Any]) -> None:
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **one} for one in statements]}
    cloud.client("iam").put_role_policy(RoleName=name, PolicyName="only", PolicyDocument=json.dumps(policy))


def task_definition(cloud: LocalCloud, family: str, code: str, **more: Any) -> str:
    logs = cloud.client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix=f"/{family}")["logGroups"]:
        logs.create_log_group(logGroupName=f"/{family}")
    container = {
        "name": "worker",
        "image": "example",
        "command": ["python", "-c", code],
        "essential": True,
        "environment": [{"name": "GIVEN", "value": "by the task definition"}],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": f"/{family}",
                "awslogs-region": cloud.region,
                "awslogs-stream-prefix": "task",
            },
        },
        **more.pop("container", {}),
    }
    definition = cloud.client("ecs").register_task_definition(
        family=family,
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        containerDefinitions=[container],
        **{"executionRoleArn": execution_role(cloud), **more},
    )
    arn: str = definition["taskDefinition"]["taskDefinitionArn"]
    return arn


def execution_role(cloud: LocalCloud) -> str:
    try:
        return role(cloud, "execution", {"Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"})
    except ClientError:
        return f"arn:aws:iam::{ACCOUNT}:role/execution"


def run_task(cloud: LocalCloud, definition: str) -> str:
    answer = cloud.client("ecs").run_task(cluster="tests", taskDefinition=definition, launchType="FARGATE")
    arn: str = answer["tasks"][0]["taskArn"]
    return arn


def ended(cloud: LocalCloud, task_arn: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        task: dict[str, Any] = cloud.client("ecs").describe_tasks(cluster="tests", tasks=[task_arn])["tasks"][0]
        return task if task["lastStatus"] == "STOPPED" else None

    return eventually(look, seconds=_SOON_SECONDS)


def log_of(cloud: LocalCloud, family: str, task_arn: str) -> list[str]:
    stream = f"task/worker/{task_arn.rsplit('/', 1)[-1]}"

    def look() -> list[str] | None:
        events = cloud.client("logs").get_log_events(logGroupName=f"/{family}", logStreamName=stream)["events"]
        return [event["message"] for event in events] or None

    return eventually(look, seconds=_SOON_SECONDS)


def running_pid(cloud: LocalCloud, task_arn: str) -> int:
    name = f"task ministack-ecs-{task_arn.rsplit('/', 1)[-1][:8]}-worker"

    def look() -> int | None:
        return next((one.pid for one in recorded(cloud.state_dir / "processes") if one.what == name), None)

    return eventually(look, seconds=_SOON_SECONDS)


def start(cloud: LocalCloud, name: str, state: dict[str, Any], role_arn: str) -> str:
    """Start an execution of a new state machine with a single Task state, and return the execution's ARN."""
    states = cloud.client("stepfunctions")
    definition = {"QueryLanguage": "JSONata", "StartAt": "Only", "States": {"Only": {"Type": "Task", **state}}}
    machine = states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=role_arn)
    arn: str = states.start_execution(stateMachineArn=machine["stateMachineArn"], input="{}")["executionArn"]
    return arn


def execute(cloud: LocalCloud, name: str, state: dict[str, Any], role_arn: str) -> dict[str, Any]:
    """Run a new state machine with a single Task state, and return the description of its execution after it has
    ended."""
    states, execution = cloud.client("stepfunctions"), start(cloud, name, state, role_arn)

    def look() -> dict[str, Any] | None:
        described: dict[str, Any] = states.describe_execution(executionArn=execution)
        return described if described["status"] != "RUNNING" else None

    return eventually(look, seconds=_SOON_SECONDS)


# --- isolation from the user and the network ----------------------------------------------------------------


def test_nothing_is_written_into_the_users_home(cloud: LocalCloud, user_home: Path) -> None:
    assert cloud.prefect is not None
    assert list(user_home.iterdir()) == []


def test_the_users_credentials_are_in_no_process_of_the_local_cloud(cloud: LocalCloud) -> None:
    assert "AKIAUSERSOWNKEY" not in str(cloud.endpoints.environment)
    assert cloud.client("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    for record in recorded(cloud.state_dir / "processes"):
        environment = Path(f"/proc/{record.pid}/environ").read_text()
        assert "users-own-secret" not in environment, record.what
        assert "HTTP_PROXY" not in environment, record.what


def test_it_listens_on_loopback_only(cloud: LocalCloud) -> None:
    listening = {
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    for url in (cloud.endpoints.aws_endpoint_url, cloud.endpoints.prefect_api_url):
        port = int(url.split(":")[2].split("/")[0])
        assert {address for address in listening if address.endswith(f":{port:04X}")} == {f"0100007F:{port:04X}"}


def test_the_prefect_ui_talks_to_the_port_that_was_chosen(cloud: LocalCloud) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(cloud.endpoints.prefect_ui_url) as page:
        assert b"<title>Prefect" in page.read()
    with direct.open(f"{cloud.endpoints.prefect_ui_url}/ui-settings") as settings:
        assert json.load(settings)["api_url"] == cloud.endpoints.prefect_api_url


def test_prefect_offers_block_types_for_aws_secrets_and_slack(cloud: LocalCloud) -> None:
    asked = {"block_types": {"slug": {"any_": ["aws-credentials", "secret", "slack-webhook"]}}}
    answer = httpx.post(f"{cloud.endpoints.prefect_api_url}/block_types/filter", json=asked, trust_env=False)
    assert len(answer.json()) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Host": "evil.example:4200"},
    ],
    ids=str,
)
@pytest.mark.parametrize("server", ["prefect", "aws"])
def test_a_page_of_another_site_is_rejected(cloud: LocalCloud, headers: dict[str, str], server: str) -> None:
    """A browser sends some requests of a page without asking the server first, such as a body without a content type.

    https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/CORS (simple requests)
    """
    name = f"by-{server}-{abs(hash(str(headers)))}"
    if server == "aws":
        answer = httpx.put(f"{cloud.endpoints.aws_endpoint_url}/{name}", headers=headers, trust_env=False)
    else:
        url = f"{cloud.endpoints.prefect_api_url}/flows/"
        answer = httpx.post(url, content=json.dumps({"name": name}), headers=headers, trust_env=False)
        names = httpx.post(f"{url}filter", json={}, trust_env=False).json()
        assert name not in {flow["name"] for flow in names}
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_the_uis_own_page_may_call_prefect_by_address_and_by_name(cloud: LocalCloud) -> None:
    for origin in (cloud.endpoints.prefect_ui_url, cloud.endpoints.prefect_ui_url.replace("127.0.0.1", "localhost")):
        url = f"{cloud.endpoints.prefect_api_url}/flows/filter"
        answer = httpx.post(url, json={}, headers={"Origin": origin}, trust_env=False)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin


# --- tasks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "exit_code"), [("pass", 0), ("raise SystemExit(7)", 7)])
def test_a_task_ends_with_the_exit_code_of_its_process(cloud: LocalCloud, code: str, exit_code: int) -> None:
    task = ended(cloud, run_task(cloud, task_definition(cloud, f"exits-{exit_code}", code)))
    assert task["containers"][0]["exitCode"] == exit_code
    assert task["stopCode"] == "EssentialContainerExited"


def test_a_task_that_is_killed_ends_with_137(cloud: LocalCloud) -> None:
    arn = run_task(cloud, task_definition(cloud, "killed", "import time; time.sleep(60)"))
    os.kill(running_pid(cloud, arn), signal.SIGKILL)
    assert ended(cloud, arn)["containers"][0]["exitCode"] == 137


def test_a_stopped_task_gets_sigterm_can_still_call_aws_and_shows_its_own_exit_code(cloud: LocalCloud) -> None:
    bucket(cloud, "last-words")
    code = (
        "import boto3, signal, sys\n"
        "def last(*_):\n"
        "    boto3.client('s3').put_object(Bucket='last-words', Key='last', Body=b'goodbye'); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, last); print('ready', flush=True); signal.pause()"
    )
    speaker = role(cloud, "speaker", {"Action": "s3:PutObject", "Resource": "arn:aws:s3:::last-words/*"})
    arn = run_task(cloud, task_definition(cloud, "stopped", code, taskRoleArn=speaker))
    assert log_of(cloud, "stopped", arn) == ["ready"]
    stopping = cloud.client("ecs").stop_task(cluster="tests", task=arn, reason="enough")["task"]
    assert (stopping["desiredStatus"], stopping["lastStatus"]) == ("STOPPED", "RUNNING")  # as on AWS, this takes time
    task = ended(cloud, arn)
    assert cloud.client("s3").get_object(Bucket="last-words", Key="last")["Body"].read() == b"goodbye"
    assert task["containers"][0]["exitCode"] == 3
    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "enough")


def test_a_task_that_ignores_sigterm_is_killed_after_its_stop_timeout(cloud: LocalCloud) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    definition = task_definition(cloud, "deaf", code, container={"stopTimeout": 2})
    arn = run_task(cloud, definition)
    assert log_of(cloud, "deaf", arn) == ["deaf"]
    pid, begun = running_pid(cloud, arn), time.monotonic()
    cloud.client("ecs").stop_task(cluster="tests", task=arn)
    cloud.client("ecs").stop_task(cluster="tests", task=arn)  # a second request changes nothing
    assert ended(cloud, arn)["containers"][0]["exitCode"] == 137
    assert time.monotonic() - begun > 1.9
    assert not Path(f"/proc/{pid}").exists()


def test_a_task_sees_its_own_environment_and_nothing_else(cloud: LocalCloud) -> None:
    arn = run_task(cloud, task_definition(cloud, "looks", "import json, os; print(json.dumps(dict(os.environ)))"))
    seen = json.loads(log_of(cloud, "looks", arn)[0])
    assert seen["GIVEN"] == "by the task definition"
    assert seen["AWS_REGION"] == cloud.region
    assert seen["AWS_ENDPOINT_URL"] == cloud.endpoints.aws_endpoint_url
    assert Path(seen["PATH"].split(":")[0]) == Path(sys.executable).parent
    assert Path(seen["HOME"]).is_relative_to(cloud.state_dir)
    assert not {"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "HTTP_PROXY", "PREFECT_HOME"} & set(seen)


def test_a_task_whose_command_does_not_exist_fails_to_start(cloud: LocalCloud) -> None:
    definition = task_definition(cloud, "missing", "", container={"command": ["no-such-program"]})
    assert ended(cloud, run_task(cloud, definition))["stopCode"] == "TaskFailedToStart"


def test_a_task_whose_execution_role_may_not_log_fails_to_start(cloud: LocalCloud) -> None:
    mute = role(cloud, "mute", {"Action": "logs:CreateLogStream", "Resource": "*"})
    task = ended(cloud, run_task(cloud, task_definition(cloud, "mute", "pass", executionRoleArn=mute)))
    assert task["stopCode"] == "TaskFailedToStart"
    assert "logs:PutLogEvents" in task["stoppedReason"]


# --- the task's role ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "call", "exit_code"),
    [
        ("writes", "s3.put_object(Bucket='mine', Key='allowed/a', Body=b'1')", 0),
        ("trespasses", "s3.put_object(Bucket='mine', Key='other/a', Body=b'1')", 3),
        ("deletes", "s3.delete_object(Bucket='mine', Key='allowed/a')", 3),
    ],
)
def test_a_task_may_do_what_its_role_allows_and_nothing_else(
    cloud: LocalCloud, name: str, call: str, exit_code: int
) -> None:
    bucket(cloud, "mine")
    writer = role(cloud, name, {"Action": "s3:PutObject", "Resource": "arn:aws:s3:::mine/allowed/*"})
    arn = run_task(cloud, task_definition(cloud, name, _S3_TASK.format(call=call), taskRoleArn=writer))
    assert ended(cloud, arn)["containers"][0]["exitCode"] == exit_code
    if exit_code:
        assert log_of(cloud, name, arn) == ["refused: AccessDenied"]
    decision = next(one for one in decisions_of(cloud.state_dir) if one["role"] == name)
    assert decision["allowed"] == (exit_code == 0)
    assert decision["resource"].startswith("arn:aws:s3:::mine/")


def test_a_task_without_a_role_has_no_credentials(cloud: LocalCloud) -> None:
    code = "import boto3; print(boto3.Session().get_credentials())"
    arn = run_task(cloud, task_definition(cloud, "nobody", code))
    assert log_of(cloud, "nobody", arn) == ["None"]


def test_a_task_cannot_fetch_credentials_with_a_guessed_token(cloud: LocalCloud) -> None:
    keeper = role(cloud, "keeper", {"Action": "s3:*", "Resource": "*"})
    code = (
        "import os, urllib.request\n"
        "uri = os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI']\n"
        "try: urllib.request.urlopen(urllib.request.Request(uri, headers={'Authorization': 'guessed'}))\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
    )
    arn = run_task(cloud, task_definition(cloud, "thief", code, taskRoleArn=keeper))
    assert log_of(cloud, "thief", arn) == ["403"]


# --- the state machine's role -------------------------------------------------------------------------------


def test_a_state_machine_may_list_only_where_its_role_allows(cloud: LocalCloud) -> None:
    bucket(cloud, "listed")
    condition = {"StringLike": {"s3:prefix": "receipts/*"}}
    lister = role(
        cloud,
        "lister",
        {"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::listed", "Condition": condition},
    )

    def state(prefix: str) -> dict[str, Any]:
        resource = "arn:aws:states:::aws-sdk:s3:listObjectsV2"
        return {"Resource": resource, "Arguments": {"Bucket": "listed", "Prefix": prefix}, "End": True}

    assert execute(cloud, "allowed", state("receipts/1"), lister)["status"] == "SUCCEEDED"
    refused = execute(cloud, "refused", state("data/1"), lister)
    assert (refused["status"], refused["error"]) == ("FAILED", "S3.S3Exception")
    assert "s3:ListBucket" in refused["cause"]
    asked = [one for one in decisions_of(cloud.state_dir) if one["role"] == "lister"]
    assert [(one["allowed"], one["asked_by"]) for one in asked] == [
        (True, "step functions"),
        (False, "step functions"),
    ]


def test_an_integration_whose_permissions_are_unknown_is_rejected(cloud: LocalCloud) -> None:
    anyone = role(cloud, "anyone", {"Action": "*", "Resource": "*"})
    state = {"Resource": "arn:aws:states:::aws-sdk:s3:listBuckets", "Arguments": {}, "End": True}
    assert "does not support" in execute(cloud, "unknown", state, anyone)["cause"]


_RUN_TASK_STATEMENTS = (
    {"Action": ["ecs:RunTask", "ecs:DescribeTasks", "ecs:StopTask"], "Resource": "*"},
    {"Action": ["events:PutTargets", "events:PutRule", "events:DescribeRule"], "Resource": "*"},
)


def run_state(definition: str, **more: Any) -> dict[str, Any]:
    arguments = {"Cluster": "tests", "TaskDefinition": definition, "LaunchType": "FARGATE"}
    return {"Resource": "arn:aws:states:::ecs:runTask.sync", "Arguments": arguments, "End": True, **more}


def test_running_a_task_needs_the_permission_to_pass_its_roles(cloud: LocalCloud) -> None:
    definition = task_definition(cloud, "passed", "pass")
    launcher = role(cloud, "launcher", *_RUN_TASK_STATEMENTS)
    refused = execute(cloud, "without-pass-role", run_state(definition), launcher)
    assert (refused["error"], "iam:PassRole" in refused["cause"]) == ("ECS.AccessDeniedException", True)
    allow(
        cloud,
        "launcher",
        *_RUN_TASK_STATEMENTS,
        {"Action": "iam:PassRole", "Resource": execution_role(cloud)},
    )
    done = execute(cloud, "with-pass-role", run_state(definition), launcher)
    assert done["status"] == "SUCCEEDED"
    task = json.loads(done["output"])
    assert (task["LastStatus"], task["Containers"][0]["ExitCode"]) == ("STOPPED", 0)


def test_a_task_that_fails_fails_its_state_with_the_task_as_the_cause(cloud: LocalCloud) -> None:
    runner = role(cloud, "runner", *_RUN_TASK_STATEMENTS, {"Action": "iam:PassRole", "Resource": "*"})
    failed = execute(cloud, "exit-9", run_state(task_definition(cloud, "nine", "exit(9)")), runner)
    assert failed["error"] == "States.TaskFailed"
    assert json.loads(failed["cause"])["Containers"][0]["ExitCode"] == 9


def test_a_state_that_times_out_stops_its_task(cloud: LocalCloud) -> None:
    runner = role(cloud, "hurried", *_RUN_TASK_STATEMENTS, {"Action": "iam:PassRole", "Resource": "*"})
    definition = task_definition(cloud, "slow", "import time; time.sleep(60)")
    late = execute(cloud, "late", run_state(definition, TimeoutSeconds=2), runner)
    assert (late["status"], late["error"]) == ("FAILED", "States.Timeout")
    ecs = cloud.client("ecs")
    eventually(lambda: not ecs.list_tasks(cluster="tests", family="slow")["taskArns"], seconds=_SOON_SECONDS)


def test_a_schedule_may_start_only_what_its_role_allows(cloud: LocalCloud) -> None:
    nothing = {"QueryLanguage": "JSONata", "StartAt": "End", "States": {"End": {"Type": "Succeed"}}}
    states, scheduler = cloud.client("stepfunctions"), cloud.client("scheduler")
    machine = states.create_state_machine(name="swept", definition=json.dumps(nothing), roleArn=role(cloud, "idle"))[
        "stateMachineArn"
    ]
    allowed = {"Action": "states:StartExecution", "Resource": machine}
    for name, statements in (("may", [allowed]), ("may-not", [])):
        target = {"Arn": machine, "RoleArn": role(cloud, f"schedule-{name}", *statements)}
        scheduler.create_schedule(
            Name=name,
            ScheduleExpression="at(2026-01-01T00:00:00)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target=target,
        )

    def asked() -> dict[str, bool]:
        return {one["role"]: one["allowed"] for one in decisions_of(cloud.state_dir) if one["asked_by"] == "scheduler"}

    eventually(lambda: len(asked()) == 2, seconds=_SOON_SECONDS)
    assert asked() == {"schedule-may": True, "schedule-may-not": False}
    assert len(states.list_executions(stateMachineArn=machine)["executions"]) == 1


# --- Lambda logs, start, failure and restart ----------------------------------------------------------------


_TALKATIVE = """
import sys

def handle(event, context):
    for number in range(event["lines"]):
        print(f'{{"request": "{context.aws_request_id}", "number": {number}}}')
    if event["ends"] == "dead":
        sys.exit(3)
    if event["ends"] == "raises":
        raise ValueError("no more to say")
"""


@pytest.fixture(scope="module")
def talkative(cloud: LocalCloud) -> str:
    """Create a Lambda function that writes the requested number of log lines, and return the name of its log group."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("talkative.py", _TALKATIVE)
    group = "/tests/talkative"
    cloud.client("logs").create_log_group(logGroupName=group)
    cloud.client("iam").create_role(RoleName="talkative", AssumeRolePolicyDocument=json.dumps(_TRUST))
    cloud.client("lambda").create_function(
        FunctionName="talkative",
        Runtime="python3.13",
        Role=f"arn:aws:iam::{ACCOUNT}:role/talkative",
        Handler="talkative.handle",
        Code={"ZipFile": archive.getvalue()},
        Timeout=30,
        LoggingConfig={"LogFormat": "JSON", "LogGroup": group},
    )
    return group


def streams_of(cloud: LocalCloud, group: str) -> set[str]:
    pages = cloud.client("logs").get_paginator("describe_log_streams").paginate(logGroupName=group)
    return {stream["logStreamName"] for page in pages for stream in page["logStreams"]}


@pytest.mark.parametrize("processes", ["new", "used"])
def test_everything_that_an_invocation_prints_is_in_its_own_log_stream(
    cloud: LocalCloud, talkative: str, processes: str
) -> None:
    """However the invocations end, and whether or not their processes have run others before."""
    before, lines = streams_of(cloud, talkative), 1500
    payloads = [json.dumps({"lines": lines, "ends": ends}) for ends in ("well", "raises", "dead") for _ in range(8)]
    with ThreadPoolExecutor(len(payloads)) as callers:  # so many at once that the emulator reads their output late
        invoke = cloud.client("lambda").invoke
        list(callers.map(lambda payload: invoke(FunctionName="talkative", Payload=payload), payloads))
    streams = streams_of(cloud, talkative) - before
    assert len(streams) == len(payloads)
    for stream in streams:
        events = cloud.client("logs").get_log_events(logGroupName=talkative, logStreamName=stream, startFromHead=True)
        said = [json.loads(event["message"]) for event in events["events"] if event["message"].startswith("{")]
        (request,) = {line["record"]["requestId"] for line in said if "record" in line}
        assert [(line["request"], line["number"]) for line in said if "request" in line] == [
            (request, number) for number in range(lines)
        ]


def test_a_second_cloud_on_the_same_folder_is_rejected(cloud: LocalCloud) -> None:
    with pytest.raises(LocalCloudBusy, match=f"process {os.getpid()}"):
        LocalCloud(cloud.state_dir).start()
    assert cloud.client("sts").get_caller_identity()  # the first cloud still works


def test_a_requested_port_that_is_taken_is_named(cloud: LocalCloud, tmp_path: Path) -> None:
    taken = int(cloud.endpoints.aws_endpoint_url.rsplit(":", 1)[-1])
    with pytest.raises(PortTaken, match=str(taken)):
        LocalCloud(tmp_path, aws_port=taken, with_prefect=False).start()


def test_two_clouds_that_start_together_each_get_their_own_prefect_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "DEFAULT_PREFECT_PORT", free_port())  # both try to use this port, which is free
    clouds = [LocalCloud(tmp_path / name) for name in ("one", "other")]
    try:
        with forking(), ThreadPoolExecutor() as pool:
            list(pool.map(LocalCloud.start, clouds))
        with httpx.Client(trust_env=False, timeout=10) as http:  # a user's proxy cannot reach loopback
            homes = [http.get(f"{one.endpoints.prefect_api_url}/admin/settings").json()["home"] for one in clouds]
    finally:
        for one in clouds:
            one.stop()
    assert homes == [str(one.state_dir / "prefect") for one in clouds]


def test_a_requested_docker_engine_that_is_missing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_DOCKER", "1")
    with pytest.raises(ServiceDied, match="SLUICE_DOCKER=1"):
        LocalCloud(tmp_path, with_prefect=False, aws_port=free_port()).start()


def test_a_service_that_dies_is_reported_with_its_exit_code_and_log(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, with_prefect=False, aws_port=free_port()) as cloud:
        cloud.check()
        assert cloud.emulator is not None
        assert cloud.emulator.pid is not None
        os.kill(cloud.emulator.pid, signal.SIGKILL)

        def died() -> str | None:
            try:
                cloud.check()
            except ServiceDied as error:
                return str(error)
            return None

        message = eventually(died, seconds=_SOON_SECONDS)
    assert "AWS emulator" in message
    assert "137" in message
    assert "cloud.log" in message


def test_state_survives_a_restart_and_interrupted_executions_continue(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with LocalCloud(tmp_path, with_prefect=False, aws_port=free_port()) as cloud:
        s3 = cloud.client("s3")
        bucket(cloud, "kept")
        s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        versions = [s3.put_object(Bucket="kept", Key="a", Body=body)["VersionId"] for body in (b"1", b"2")]
        runner = role(cloud, "runner", *_RUN_TASK_STATEMENTS, {"Action": "iam:PassRole", "Resource": "*"})
        definition = task_definition(
            cloud, "twice", f"import pathlib, time\nif not pathlib.Path({str(go)!r}).exists(): time.sleep(60)"
        )
        execution = start(cloud, "kept", run_state(definition), runner)
        ecs = cloud.client("ecs")
        interrupted = eventually(lambda: ecs.list_tasks(cluster="tests")["taskArns"], seconds=_SOON_SECONDS)
        running_pid(cloud, interrupted[0])
    assert recorded(tmp_path / "processes") == []
    go.touch()
    with LocalCloud(tmp_path, with_prefect=False) as cloud:
        s3, states = cloud.client("s3"), cloud.client("stepfunctions")
        bodies = [s3.get_object(Bucket="kept", Key="a", VersionId=one)["Body"].read() for one in versions]
        assert bodies == [b"1", b"2"]
        stale = [arn for arn in cloud.client("ecs").list_tasks(cluster="tests")["taskArns"] if arn in interrupted]
        assert stale == [], "a task of the earlier run is listed as one that is meant to run"
        eventually(
            lambda: states.describe_execution(executionArn=execution)["status"] == "SUCCEEDED", seconds=_SOON_SECONDS
        )
