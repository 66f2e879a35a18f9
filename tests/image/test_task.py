"""Tests that a container of the image processes uploads. The state machine starts it as an ECS task, with the settings
of the task definition."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flows.pipeline.receipt import Status
from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import good_orders
from tests.emulator.records import decisions_of
from tests.image.engine import Engine

pytestmark = [pytest.mark.image, pytest.mark.timeout(1_800)]  # the first test waits for the image to be built

_KILLED = 137
_STOPPED = 143
_SECONDS = 240.0


def tasks(chain: Chain, status: str) -> dict[str, dict[str, Any]]:
    """Return ARN → description for the ECS tasks whose desired status is `status`."""
    cluster = chain.outputs["ClusterArn"]
    arns = chain.ecs.list_tasks(cluster=cluster, desiredStatus=status)["taskArns"]
    described = chain.ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    return {task["taskArn"]: task for task in described}


def container_of(engine: Engine, task_arn: str) -> str:
    """Return the ID of a task's container, or "" if it has none."""
    return engine("ps", "--all", "--quiet", "--filter", f"label=com.amazonaws.ecs.task-arn={task_arn}").strip()


def settled(chain: Chain) -> None:
    """Wait until no ECS task is running."""
    chain.wait_for(lambda: not tasks(chain, "RUNNING"), "the tasks to end", _SECONDS)


@pytest.fixture(scope="module")
def published(chain: Chain) -> UploadMessage:
    """Upload a file, wait until a container has published it, and return its message."""
    upload = chain.upload("incoming/orders/contained.csv", good_orders(7))
    assert chain.done(upload, _SECONDS).status is Status.PUBLISHED
    settled(chain)
    return upload


def test_an_upload_is_published_by_a_container_of_the_image(chain: Chain, published: UploadMessage) -> None:
    receipt = chain.receipt(published)
    assert receipt.status is Status.PUBLISHED
    assert receipt.rows.published == 7
    assert chain.published(receipt)["revenue"].tolist() == [19.0] * 7
    assert receipt.observed  # the container could reach Prefect
    assert chain.queue_is_empty()


def test_ecs_reports_that_the_task_exited_with_0(chain: Chain, published: UploadMessage) -> None:
    task = tasks(chain, "STOPPED")[chain.receipt(published).chain.task_arn or ""]
    assert task["stopCode"] == "EssentialContainerExited"
    assert [container["exitCode"] for container in task["containers"]] == [0]


def test_the_container_ran_as_its_task_definition_says(chain: Chain, engine: Engine, published: UploadMessage) -> None:
    definition = chain.ecs.describe_task_definition(taskDefinition=chain.outputs["TaskDefinitionArn"])["taskDefinition"]
    (wanted,) = definition["containerDefinitions"]
    ran = inspected(engine, chain.receipt(published).chain.task_arn or "")
    assert ran["Config"]["User"] == wanted["user"] == "10001"
    assert ran["Config"]["Cmd"] == wanted["command"]
    assert ran["HostConfig"]["ReadonlyRootfs"] is wanted["readonlyRootFilesystem"] is True
    assert ran["HostConfig"]["Privileged"] is False
    assert ran["HostConfig"]["Init"] is True
    assert ran["HostConfig"]["Memory"] == int(definition["memory"]) * 2**20
    assert ran["HostConfig"]["NanoCpus"] == int(definition["cpu"]) * 10**9 // 1024
    assert [(mount["Type"], mount["Destination"], mount["RW"]) for mount in ran["Mounts"]] == [("volume", "/tmp", True)]  # noqa: S108
    environment = dict(entry.split("=", 1) for entry in ran["Config"]["Env"])
    assert {entry["name"]: entry["value"] for entry in wanted["environment"]}.items() <= environment.items()
    assert environment["SLUICE_EXECUTION_ARN"] == chain.receipt(published).chain.execution_arn
    assert environment["SLUICE_STAY_UNTIL"].isdecimal()


def inspected(engine: Engine, task_arn: str) -> dict[str, Any]:
    """Return the container engine's description of a task's container."""
    (container,) = json.loads(engine("inspect", container_of(engine, task_arn)))
    found: dict[str, Any] = container
    return found


def test_the_container_called_aws_only_as_its_task_role(chain: Chain, engine: Engine, published: UploadMessage) -> None:
    task_arn = chain.receipt(published).chain.task_arn or ""
    environment = inspected(engine, task_arn)["Config"]["Env"]
    assert not [entry for entry in environment if entry.startswith(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))]
    session = f"/{task_arn.rsplit('/', 1)[-1]}"
    calls = [call for call in decisions_of(chain.cloud.state_dir) if call["principal"].endswith(session)]
    role = chain.outputs["TaskRoleArn"].rsplit("/", 1)[-1]
    assert {call["role"] for call in calls if call["asked_by"] == "request"} == {role}
    assert {"sqs:ReceiveMessage", "s3:GetObjectVersion", "s3:PutObject", "sqs:DeleteMessage"} <= {
        call["action"] for call in calls
    }
    assert all(call["allowed"] for call in calls)


def test_the_containers_log_reaches_cloudwatch(chain: Chain, published: UploadMessage) -> None:
    def look() -> list[dict[str, Any]]:
        lines = chain.log_lines("TaskLogGroup")
        return [line for line in lines if line.get("event") == "done" and line["run_id"] == published.run_id]

    (done,) = chain.wait_for(look, "the task's log", _SECONDS)
    assert (done["status"], done["rows"]["published"]) == ("published", 7)


# --- SIGTERM ----------------------------------------------------------------------------------------------------


def test_sigterm_during_a_step_returns_the_message_and_the_next_task_publishes(
    chain: Chain, engine: Engine, published: UploadMessage
) -> None:
    """ECS stops the task, as it does for a Spot interruption, and the container's init process forwards SIGTERM."""
    upload = chain.upload("incoming/waiting/stopped.csv", good_orders(3))
    first = at_work(chain, engine, but_not="")
    process_one = engine("exec", container_of(engine, first), "cat", "/proc/1/cmdline").split("\0")
    assert "python" not in process_one[0]
    chain.ecs.stop_task(cluster=chain.outputs["ClusterArn"], task=first, reason="Spot takes its capacity back")
    ended = chain.wait_for(has_ended(chain, first), "the stopped task to end", _SECONDS)
    assert [container["exitCode"] for container in ended["containers"]] == [_STOPPED]
    assert (ended["stopCode"], ended["stoppedReason"]) == ("UserInitiated", "Spot takes its capacity back")
    released = [
        call["allowed"]
        for call in decisions_of(chain.cloud.state_dir)
        if call["action"] == "sqs:ChangeMessageVisibility" and call["principal"].endswith(first.rsplit("/", 1)[-1])
    ]
    assert released
    assert all(released)
    assert not chain.has_receipt(upload)
    assert _outputs_of(chain, upload) == []
    second = at_work(chain, engine, but_not=first)  # long before the visibility timeout of the message ends
    engine("exec", container_of(engine, second), "touch", "/tmp/gate")  # noqa: S108
    receipt = chain.done(upload, _SECONDS)
    assert (receipt.rows.published, receipt.chain.task_arn, receipt.chain.receive_count) == (3, second, 2)
    settled(chain)


def at_work(chain: Chain, engine: Engine, *, but_not: str) -> str:
    """Wait until a task other than `but_not` is in the middle of its preprocessing step, and return its ARN."""

    def look() -> str | None:
        for task_arn in tasks(chain, "RUNNING"):
            container = container_of(engine, task_arn) if task_arn != but_not else ""
            wait = "until test -e /tmp/reached; do sleep 0.2; done"
            reached = ("exec", container, "timeout", "5", "sh", "-c", wait)
            if container and engine.attempt(*reached).returncode == 0:
                return task_arn
        return None

    return chain.wait_for(look, "a task to begin its preprocessing step", _SECONDS)


def has_ended(chain: Chain, task_arn: str) -> Callable[[], dict[str, Any] | None]:
    """Return a function that returns the description of a task once it has stopped, and None before."""

    def look() -> dict[str, Any] | None:
        task = tasks(chain, "STOPPED").get(task_arn)
        return task if task and task["lastStatus"] == "STOPPED" else None

    return look


# --- out of memory ----------------------------------------------------------------------------------------------


def test_an_upload_that_exceeds_the_memory_of_two_tasks_is_given_up_on(chain: Chain, published: UploadMessage) -> None:
    """Each task exits with 137 and leaves no output. After the second, the message is in the dead-letter queue."""
    before = set(tasks(chain, "STOPPED"))
    upload = chain.upload("incoming/hungry/large.csv", good_orders(3))
    chain.wait_for(lambda: sum(chain.messages("DeadLetterQueueUrl").values()) == 1, "the dead letter", _SECONDS)
    settled(chain)
    attempts = [task for arn, task in tasks(chain, "STOPPED").items() if arn not in before]
    codes = [container["exitCode"] for task in attempts for container in task["containers"]]
    assert codes.count(_KILLED) == 2, codes
    assert not chain.has_receipt(upload)
    assert _outputs_of(chain, upload) == []
    attempt = chain.attempt(upload)
    assert attempt is not None
    assert (attempt.memory_kills, attempt.given_up) == (2, True)


def _outputs_of(chain: Chain, upload: UploadMessage) -> list[str]:
    """Return the keys of all objects written for an upload, except the record of its last failed attempt."""
    return [key for key in chain.keys("") if upload.run_id in key and not key.startswith("attempts/")]
