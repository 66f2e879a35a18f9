"""The state machines, run by the embedded cloud with their roles: which case ends in which result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from deployment.aws.deploy_stack import TEMPLATE, Clients, deploy_stack
from deployment.aws.packaging import Timeouts
from deployment.local.cloud import LocalCloud
from tests.emulator.records import EXTENSIONS
from tests.infra.waiting import eventually
from tests.privileges.calls import recorded

pytestmark = pytest.mark.cloud

MAX_ATTEMPTS = 2
MAX_LOOKS = 12
TASK_SECONDS = 120  # also a task that starts slowly, on a busy machine, must reach its plan
# The container's stand-in: follows the run's plan, one line for each task, and publishes with the task's role.
TASK = """
import os, pathlib, sys, time, boto3
run_id = os.environ.get("SLUICE_RUN_ID", "sweep")
plan = pathlib.Path(sys.argv[1], run_id)
first, *others = plan.read_text().splitlines()
shorter = plan.with_name(f"{run_id}-{os.getpid()}")
shorter.write_text("\\n".join(others) or first)
shorter.replace(plan)  # at once: this process may be stopped at any moment
for step in first.split():
    verb, _, what = step.partition(":")
    if verb == "publish":
        s3, bucket, key = boto3.client("s3"), os.environ["SLUICE_PUBLISHED_BUCKET"], f"receipts/{what or run_id}.json"
        earlier = s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents")
        condition = {"IfMatch": earlier[0]["ETag"]} if earlier else {"IfNoneMatch": "*"}
        s3.put_object(Bucket=bucket, Key=key, Metadata={"status": "published", "attempt": "1"}, **condition)
    elif verb == "sleep":
        time.sleep(float(what))
    elif verb == "exit":
        os._exit(int(what))
"""


class Runs:
    """Starts executions and returns their results."""

    def __init__(self, cloud: LocalCloud, outputs: dict[str, str], plans: Path) -> None:
        self.outputs = outputs
        self.s3, self.sqs = cloud.client("s3"), cloud.client("sqs")
        self.iam, self.ecs = cloud.client("iam"), cloud.client("ecs")
        self._machines = cloud.client("stepfunctions")
        self._plans = plans

    def plan(self, run_id: str, *tasks: str) -> None:
        """Set what each task that is launched for the run will do; the last entry repeats."""
        written = self._plans / f"{run_id}-new"
        written.write_text("\n".join(tasks))
        written.replace(self._plans / run_id)

    def receipt(self, run_id: str, **metadata: str) -> None:
        """Write a receipt as an unobserved task would."""
        self.s3.put_object(Bucket=self.outputs["PublishedBucket"], Key=f"receipts/{run_id}.json", Metadata=metadata)

    def has_receipt(self, run_id: str) -> bool:
        listed = self.s3.list_objects_v2(Bucket=self.outputs["PublishedBucket"], Prefix=f"receipts/{run_id}")
        return "Contents" in listed

    def start(self, run_id: str, attempt: int = 0) -> str:
        return self.start_with({"run_id": run_id, "attempt": attempt})

    def start_with(self, given: dict[str, object], machine: str = "StateMachineArn") -> str:
        started = self._machines.start_execution(stateMachineArn=self.outputs[machine], input=json.dumps(given))
        return str(started["executionArn"])

    def end(self, execution: str) -> dict[str, Any]:
        """Wait for an execution's end; return it with the states that it passed."""
        ended: dict[str, Any] = eventually(lambda: self._ended(execution), seconds=60)
        return ended | {"states": self.states(execution)}

    def states(self, execution: str) -> list[str]:
        """Return the states that an execution has passed so far."""
        pages = self._machines.get_paginator("get_execution_history").paginate(executionArn=execution)
        entered = (event.get("stateEnteredEventDetails") for page in pages for event in page["events"])
        return [details["name"] for details in entered if details]

    def run(self, run_id: str, attempt: int = 0) -> dict[str, Any]:
        return self.end(self.start(run_id, attempt))

    def running_tasks(self) -> list[str]:
        tasks = self.ecs.list_tasks(cluster=self.outputs["ClusterArn"], desiredStatus="RUNNING")
        return list(tasks["taskArns"])

    def _ended(self, execution: str) -> dict[str, Any] | None:
        described: dict[str, Any] = self._machines.describe_execution(executionArn=execution)
        return None if described["status"] == "RUNNING" else described

    @contextmanager
    def without(self, *statements: str) -> Iterator[None]:
        """Remove statements from the state machine's role for a while."""
        arn = self._machines.describe_state_machine(stateMachineArn=self.outputs["StateMachineArn"])["roleArn"]
        role = {"RoleName": arn.rsplit("/", 1)[-1], "PolicyName": "run"}
        whole = self.iam.get_role_policy(**role)["PolicyDocument"]
        kept = [one for one in whole["Statement"] if one["Sid"] not in statements]
        assert len(kept) == len(whole["Statement"]) - len(statements)
        self.iam.put_role_policy(**role, PolicyDocument=json.dumps(whole | {"Statement": kept}))
        try:
            yield
        finally:
            self.iam.put_role_policy(**role, PolicyDocument=json.dumps(whole))

    @contextmanager
    def limit_of_a_task(self, seconds: int) -> Iterator[None]:
        """Change the time after which a task is stopped."""
        machine = self.outputs["StateMachineArn"]
        whole = self._machines.describe_state_machine(stateMachineArn=machine)["definition"]
        limit = f'"TimeoutSeconds":{TASK_SECONDS}'
        assert whole.count(limit) == 1
        changed = whole.replace(limit, f'"TimeoutSeconds":{seconds}')
        self._machines.update_state_machine(stateMachineArn=machine, definition=changed)
        try:
            yield
        finally:
            self._machines.update_state_machine(stateMachineArn=machine, definition=whole)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "plans").mkdir()
    (folder / "task.py").write_text(TASK)
    command = f"[python, {folder / 'task.py'}, {folder / 'plans'}]"
    template = folder / "template.yaml"
    text = TEMPLATE.read_text(encoding="utf-8")
    assert "[python, -m, flows.drain_queue]" in text
    template.write_text(text.replace("[python, -m, flows.drain_queue]", command), encoding="utf-8")
    parameters = {
        "ImageUri": "sluice:local",
        "PrefectApiUrl": "http://127.0.0.1:4200/api",
        "MaxAttempts": str(MAX_ATTEMPTS),
        "MaxConcurrentTasks": "1",
        "MaxLooks": str(MAX_LOOKS),
        "LookAgainMaxSeconds": "10",
        "SweepState": "DISABLED",
    }
    with LocalCloud(folder / "cloud", with_prefect=False, wait_scale=0.01, emulator_extensions=EXTENSIONS) as cloud:
        clients = Clients.made_by(cloud.client)
        outputs = deploy_stack(
            clients,
            stack_name="runs",
            parameters=parameters,
            template=template,
            timeouts=Timeouts(task_seconds=TASK_SECONDS, drain_seconds=600),
        )
        with recorded(cloud, "runs"):
            yield Runs(cloud, outputs, folder / "plans")


@pytest.fixture
def run_id(request: pytest.FixtureRequest) -> str:
    return hashlib.sha256(request.node.name.encode()).hexdigest()[:32]


def launches(ended: dict[str, Any]) -> int:
    return int(ended["states"].count("Drain the queue"))


# --- a receipt is there ---------------------------------------------------------------------------------------------


def test_a_receipt_that_is_there_already_is_reported_without_a_task(runs: Runs, run_id: str) -> None:
    runs.receipt(run_id, status="published", attempt="0")
    ended = runs.run(run_id)
    assert (ended["status"], launches(ended)) == ("SUCCEEDED", 0)
    assert json.loads(ended["output"]) == {
        "run_id": run_id,
        "attempt": 0,
        "status": "published",
        "receipt": f"s3://{runs.outputs['PublishedBucket']}/receipts/{run_id}.json",
    }


def test_a_rejected_file_fails_with_its_reason_in_plain_words(runs: Runs, run_id: str) -> None:
    reason = "“prix” is missing in 3 of 20 rows (15 %); at most 5 % + 1 é"
    runs.receipt(run_id, status="rejected", attempt="0", reason=quote(reason))
    ended = runs.run(run_id)
    assert (ended["status"], ended["error"], ended["cause"]) == ("FAILED", "DataRejected", reason)


def test_the_receipt_of_an_earlier_attempt_does_not_end_a_forced_re_run(runs: Runs, run_id: str) -> None:
    runs.receipt(run_id, status="rejected", attempt="0", reason="old")
    runs.plan(run_id, "publish")
    ended = runs.run(run_id, attempt=1)
    assert (ended["status"], launches(ended)) == ("SUCCEEDED", 1)


def test_the_receipt_of_a_later_attempt_ends_an_earlier_one(runs: Runs, run_id: str) -> None:
    runs.receipt(run_id, status="published", attempt="2")
    assert runs.run(run_id, attempt=1)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("metadata", [{}, {"status": "published"}, {"status": "published", "attempt": "x"}])
def test_a_receipt_that_does_not_say_what_it_must_is_no_success(
    runs: Runs, run_id: str, metadata: dict[str, str]
) -> None:
    runs.receipt(run_id, **metadata)
    ended = runs.run(run_id)
    assert (ended["status"], ended["error"]) == ("FAILED", "ReceiptsUnreadable")


def test_a_status_of_another_release_is_named(runs: Runs, run_id: str) -> None:
    runs.receipt(run_id, status="paused", attempt="0")
    ended = runs.run(run_id)
    assert ended["error"] == "ReceiptsUnreadable"
    assert "paused" in ended["cause"]


# --- a task is launched -----------------------------------------------------------------------------------------------


def test_the_receipt_counts_and_not_the_exit_code(runs: Runs, run_id: str) -> None:
    runs.plan(run_id, "publish exit:1")
    ended = runs.run(run_id)
    assert (ended["status"], launches(ended)) == ("SUCCEEDED", 1)


def test_a_task_that_dies_is_followed_by_another(runs: Runs, run_id: str) -> None:
    runs.plan(run_id, "exit:137", "publish")
    ended = runs.run(run_id)
    assert (ended["status"], launches(ended)) == ("SUCCEEDED", 2)
    assert "Wait before next attempt" in ended["states"]


def test_a_task_that_hangs_is_stopped_and_followed_by_another(runs: Runs, run_id: str) -> None:
    runs.plan(run_id, "sleep:600")
    with runs.limit_of_a_task(seconds=3):
        ended = runs.run(run_id)
    assert (ended["error"], launches(ended)) == ("NoReceipt", MAX_ATTEMPTS)
    assert eventually(lambda: not runs.running_tasks(), seconds=10)


@pytest.mark.parametrize("code", [0, 3])
def test_without_a_receipt_there_is_no_success_and_the_cause_says_where_to_look(
    runs: Runs, run_id: str, code: int
) -> None:
    runs.plan(run_id, f"exit:{code}")
    ended = runs.run(run_id)
    assert (ended["status"], ended["error"], launches(ended)) == ("FAILED", "NoReceipt", MAX_ATTEMPTS)
    for where in ("QueueUrl", "DeadLetterQueueUrl", "TaskLogGroup"):
        assert runs.outputs[where] in ended["cause"]
    assert code == 0 or f'"ExitCode": {code}' in ended["cause"]
    assert ended["states"][-2:] == ["No receipt yet", "No receipt"], "it looks again after the last wait"


@pytest.fixture
def busy(runs: Runs, run_id: str) -> Iterator[None]:
    """The maximum number of tasks of other executions drain the queue."""
    other = run_id[::-1]
    runs.plan(other, "sleep:600", "publish")
    execution = runs.start(other)
    (task,) = eventually(runs.running_tasks, seconds=20)
    yield
    runs.plan(other, "publish")  # should it be stopped before it has read its plan, the next one must not sleep again
    runs.ecs.stop_task(cluster=runs.outputs["ClusterArn"], task=task)
    ended = runs.end(execution)
    assert ended["status"] == "SUCCEEDED", ended


@pytest.mark.usefixtures("busy")
def test_a_run_waits_while_enough_tasks_drain_and_takes_what_they_publish(runs: Runs, run_id: str) -> None:
    execution = runs.start(run_id)
    eventually(lambda: "Wait and look again" in runs.states(execution), seconds=20)
    runs.receipt(run_id, status="published", attempt="0")
    ended = runs.end(execution)
    assert (ended["status"], launches(ended)) == ("SUCCEEDED", 0)


@pytest.mark.usefixtures("busy")
def test_a_run_does_not_wait_for_ever_while_others_drain(runs: Runs, run_id: str) -> None:
    ended = runs.run(run_id)
    assert (ended["error"], launches(ended)) == ("NoReceipt", 0)
    assert f"{MAX_LOOKS} looks" in ended["cause"]


# --- something is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["CountTasks", "LaunchTask", "PassTaskRoles", "HearOfTheTasksEnd"])
def test_a_launch_that_is_refused_is_not_called_a_missing_receipt(runs: Runs, run_id: str, statement: str) -> None:
    with runs.without(statement):
        ended = runs.run(run_id)
    assert (ended["error"], launches(ended) <= 1) == ("TaskNotLaunched", True)
    assert "is not authorized to perform" in ended["cause"]


@pytest.mark.parametrize("statement", ["FindReceipt", "ReadReceipt"])
def test_receipts_that_may_not_be_read_are_not_called_missing(runs: Runs, run_id: str, statement: str) -> None:
    runs.receipt(run_id, status="published", attempt="0")
    with runs.without(statement):
        ended = runs.run(run_id)
    assert (ended["error"], launches(ended)) == ("ReceiptsUnreadable", 0)
    assert "is not authorized to perform" in ended["cause"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"run_id": "0" * 32},
        {"run_id": "../../other", "attempt": 0},
        {"run_id": "0" * 31 + "g", "attempt": 0},
        {"run_id": "0" * 33, "attempt": 0},
        {"run_id": 7, "attempt": 0},
        {"run_id": "0" * 32, "attempt": "0"},
    ],
)
def test_an_input_that_is_none_is_refused_at_once(runs: Runs, given: dict[str, object]) -> None:
    ended = runs.end(runs.start_with(given))
    assert (ended["status"], ended["error"]) == ("FAILED", "InputUnreadable")


# --- the sweep -----------------------------------------------------------------------------------------------------


@pytest.fixture
def message(runs: Runs) -> Iterator[None]:
    """Send a message that no task processes."""
    runs.sqs.send_message(QueueUrl=runs.outputs["QueueUrl"], MessageBody="{}")
    yield
    for received in runs.sqs.receive_message(QueueUrl=runs.outputs["QueueUrl"]).get("Messages", []):
        runs.sqs.delete_message(QueueUrl=runs.outputs["QueueUrl"], ReceiptHandle=received["ReceiptHandle"])


def sweep(runs: Runs) -> dict[str, Any]:
    return runs.end(runs.start_with({}, machine="SweepStateMachineArn"))


def test_the_sweep_does_nothing_where_nothing_waits(runs: Runs) -> None:
    ended = sweep(runs)
    assert (ended["status"], ended["states"][-1]) == ("SUCCEEDED", "Nothing to do")
    assert "Start a task" not in ended["states"]


@pytest.mark.usefixtures("message")
def test_the_sweep_starts_a_task_for_messages_that_nobody_works_on(runs: Runs, run_id: str) -> None:
    runs.plan("sweep", f"publish:{run_id}")
    ended = sweep(runs)
    assert (ended["status"], ended["states"][-1]) == ("SUCCEEDED", "Started")
    assert eventually(lambda: runs.has_receipt(run_id), seconds=20)
    assert eventually(lambda: not runs.running_tasks(), seconds=20)


@pytest.mark.usefixtures("message", "busy")
def test_the_sweep_leaves_the_queue_to_a_task_that_drains_it(runs: Runs) -> None:
    ended = sweep(runs)
    assert (ended["status"], "Start a task" in ended["states"]) == ("SUCCEEDED", False)
