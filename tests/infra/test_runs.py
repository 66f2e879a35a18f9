"""Tests that the Lambda's dispatcher and the state machine leave no upload behind.

The AWS emulator runs the state machine with its role. Each task runs a short script that follows the rules of the real
task (draining_task.py). The windows pass in real time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from blocks.drains import Drains
from blocks.pause import Pause
from deployment.aws.deploy_stack import TEMPLATE, Clients, deploy_stack
from deployment.aws.packaging import Timeouts
from deployment.local.cloud import LocalCloud
from lambda_trigger.dispatch import Dispatched, Dispatcher, start_drain
from lambda_trigger.message import UploadMessage
from lambda_trigger.pause import PAUSE_KEY
from lambda_trigger.windows import upload_drain
from tests.emulator.records import EXTENSIONS
from tests.infra.waiting import eventually
from tests.privileges.calls import recorded

pytestmark = pytest.mark.cloud

WINDOW, SETTLE, VISIBILITY, DELIVERIES = 6, 5, 10, 3
TASK_SECONDS, DRAIN_SECONDS = 120, 600
MAX_TASKS = 2
HERE = Path(__file__).resolve().parent


class Refusals:
    """Prepared responses to RunTask, which the AWS emulator returns instead of ECS's
    (tests/emulator/run_task_answers.py)."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "run_task_answers.jsonl"

    def add(self, code: str, times: int = 1) -> None:
        line = json.dumps({"status": 400, "body": {"__type": code, "message": f"it is a {code}"}})
        self._file.write_text("\n".join([line] * times) + "\n")

    def left(self) -> bool:
        return self._file.exists()


class Message(UploadMessage):
    """An upload's message whose body is an instruction for the task in these tests (draining_task.py)."""

    __slots__ = ()

    def to_json(self) -> str:
        return self.key


def saying(do: str, name: str, **more: object) -> Message:
    body = json.dumps({"do": do, "name": name, **more})
    return Message(bucket="landing", key=body, version_id="v", etag="e", size_bytes=1)


class Runs:
    """Dispatches uploads as the Lambda does, starts drains, and returns their results."""

    def __init__(self, cloud: LocalCloud, outputs: dict[str, str], folder: Path) -> None:
        self.outputs, self.folder = outputs, folder
        self.s3, self.sqs, self.iam, self.ecs = (cloud.client(name) for name in ("s3", "sqs", "iam", "ecs"))
        self.machines = cloud.client("stepfunctions")
        self.refusals = Refusals(cloud.state_dir)

    # --- starting

    def dispatcher(self, **changes: Any) -> Dispatcher:
        """Return the dispatcher of a Lambda process that has not started a drain yet."""
        given = {
            "sqs": self.sqs,
            "step_functions": self.machines,
            "s3": self.s3,
            "queue_url": self.outputs["QueueUrl"],
            "state_machine_arn": self.outputs["StateMachineArn"],
            "published_bucket": self.outputs["PublishedBucket"],
            "window_seconds": WINDOW,
        }
        return Dispatcher(**(given | changes))

    def upload(self, do: str, name: str, **more: object) -> Dispatched:
        return self.dispatcher().dispatch(saying(do, name, **more))

    def send(self, do: str, name: str, **more: object) -> None:
        """Queue a message without starting a drain for it."""
        self.sqs.send_message(QueueUrl=self.outputs["QueueUrl"], MessageBody=saying(do, name, **more).to_json())

    def start(self, given: dict[str, object], name: str = "") -> str:
        named = {"name": name} if name else {}
        started = self.machines.start_execution(
            stateMachineArn=self.outputs["StateMachineArn"], input=json.dumps(given), **named
        )
        return str(started["executionArn"])

    def sweep(self) -> dict[str, Any]:
        return self.end(self.start({"source": "schedule"}))

    def drains(self) -> Drains:
        clients = {"sqs": self.sqs, "stepfunctions": self.machines, "s3": self.s3}
        return Drains(
            state_machine_arn=self.outputs["StateMachineArn"],
            queue_url=self.outputs["QueueUrl"],
            published_bucket=self.outputs["PublishedBucket"],
            window_seconds=WINDOW,
            client=clients.__getitem__,
        )

    # --- reading

    def describe(self, execution: str) -> dict[str, Any]:
        described: dict[str, Any] = self.machines.describe_execution(executionArn=execution)
        return described

    def end(self, execution: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until an execution has ended, and return its description with the states that it entered."""
        eventually(lambda: self.describe(execution)["status"] != "RUNNING", seconds=seconds)
        return self.describe(execution) | {"states": self.states(execution)}

    def states(self, execution: str) -> list[str]:
        """Return the states that an execution has entered so far, without the states inside the Map."""
        pages = self.machines.get_paginator("get_execution_history").paginate(executionArn=execution)
        entered = (event.get("stateEnteredEventDetails") for page in pages for event in page["events"])
        return [details["name"] for details in entered if details]

    def starts(self, execution: str | None = None) -> list[dict[str, Any]]:
        """Return what each started task recorded, for one execution or for all, the oldest first."""
        found = [json.loads(path.read_text()) for path in (self.folder / "starts").iterdir()]
        mine = [start for start in found if execution in (None, start["execution"])]
        return sorted(mine, key=lambda start: float(start["at"]))

    def wait_for_starts(self, count: int) -> None:
        eventually(lambda: len(self.starts()) == count, seconds=30)

    def is_done(self, name: str) -> bool:
        return (self.folder / "done" / name).exists()

    def running_tasks(self) -> list[str]:
        tasks = self.ecs.list_tasks(
            cluster=self.outputs["ClusterArn"], family=self.outputs["TaskFamily"], desiredStatus="RUNNING"
        )
        return list(tasks["taskArns"])

    def most_tasks_at_once(self, executions: Collection[str]) -> int:
        """Return the largest number of tasks of the given executions that existed at the same time, according to ECS's
        timestamps."""
        cluster = self.outputs["ClusterArn"]
        pages = self.ecs.get_paginator("list_tasks").paginate
        changes: list[tuple[datetime, int]] = []
        for status in ("RUNNING", "STOPPED"):
            for page in pages(cluster=cluster, family=self.outputs["TaskFamily"], desiredStatus=status):
                tasks = self.ecs.describe_tasks(cluster=cluster, tasks=page["taskArns"])["tasks"]
                for task in (task for task in tasks if execution_of(task) in executions):
                    changes += [(task["createdAt"], 1), (task.get("stoppedAt", datetime.max.replace(tzinfo=UTC)), -1)]
        return max(accumulate(change for _, change in sorted(changes)))

    def dead_letters(self) -> int:
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=self.outputs["DeadLetterQueueUrl"], AttributeNames=["ApproximateNumberOfMessages"]
        )["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"])

    def be_quiet(self) -> None:
        """Stop all drains, wait for their tasks to end, and delete all messages, the plan and the records of starts."""
        running = {"stateMachineArn": self.outputs["StateMachineArn"], "statusFilter": "RUNNING"}
        for execution in self.machines.list_executions(**running)["executions"]:
            self.machines.stop_execution(executionArn=execution["executionArn"])
        eventually(lambda: not self.running_tasks(), seconds=60)
        for queue in ("QueueUrl", "DeadLetterQueueUrl"):
            self.sqs.purge_queue(QueueUrl=self.outputs[queue])
        (self.folder / "plan").unlink(missing_ok=True)
        for path in (self.folder / "starts").iterdir():
            path.unlink()

    # --- changing

    def plan(self, *exit_codes: int) -> None:
        """Set the exit codes of the next tasks, which will end before they receive a message."""
        (self.folder / "plan").write_text(" ".join(map(str, exit_codes)))

    @contextmanager
    def without(self, *statements: str) -> Iterator[None]:
        """Remove statements from the state machine's role until the context ends."""
        arn = self.machines.describe_state_machine(stateMachineArn=self.outputs["StateMachineArn"])["roleArn"]
        role = {"RoleName": arn.rsplit("/", 1)[-1], "PolicyName": "drain-queue"}
        whole = self.iam.get_role_policy(**role)["PolicyDocument"]
        kept = [one for one in whole["Statement"] if one["Sid"] not in statements]
        assert len(kept) == len(whole["Statement"]) - len(statements)
        self.iam.put_role_policy(**role, PolicyDocument=json.dumps(whole | {"Statement": kept}))
        try:
            yield
        finally:
            self.iam.put_role_policy(**role, PolicyDocument=json.dumps(whole))

    @contextmanager
    def definition_with(self, before: str, after: str) -> Iterator[None]:
        """Replace a part of the state machine's definition until the context ends."""
        machine = self.outputs["StateMachineArn"]
        whole = self.machines.describe_state_machine(stateMachineArn=machine)["definition"]
        assert whole.count(before) == 1, before
        self.machines.update_state_machine(stateMachineArn=machine, definition=whole.replace(before, after))
        try:
            yield
        finally:
            self.machines.update_state_machine(stateMachineArn=machine, definition=whole)


def execution_of(task: dict[str, Any]) -> str:
    """Return the ARN of the execution that launched a task."""
    (override,) = task["overrides"]["containerOverrides"]
    return next(str(one["value"]) for one in override["environment"] if one["name"] == "SLUICE_EXECUTION_ARN")


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("starts", "done"):
        (folder / name).mkdir()
    command = f"[python, {HERE / 'draining_task.py'}, {folder}]"
    template = folder / "template.yaml"
    text = TEMPLATE.read_text(encoding="utf-8")
    assert "[python, -m, flows.drain_queue]" in text
    template.write_text(text.replace("[python, -m, flows.drain_queue]", command), encoding="utf-8")
    parameters = {
        "ImageUri": "sluice:local",
        "PrefectApiUrl": "http://127.0.0.1:4200/api",
        "WindowSeconds": str(WINDOW),
        "SettleSeconds": str(SETTLE),
        "VisibilityTimeoutSeconds": str(VISIBILITY),
        "MaxReceiveCount": str(DELIVERIES),
        "RetryDelaySeconds": "1",
        "MaxConcurrentTasks": str(MAX_TASKS),
        "MessagesPerTask": "4",
        "SweepState": "DISABLED",
    }
    with LocalCloud(folder / "cloud", with_prefect=False, wait_scale=0.05, emulator_extensions=EXTENSIONS) as cloud:
        clients = Clients.made_by(cloud.client)
        outputs = deploy_stack(
            clients,
            stack_name="runs",
            parameters=parameters,
            template=template,
            timeouts=Timeouts(task_seconds=TASK_SECONDS, drain_seconds=DRAIN_SECONDS),
        )
        with recorded(cloud, "runs"):
            yield Runs(cloud, outputs, folder)


@pytest.fixture
def runs(shared_runs: Runs) -> Iterator[Runs]:
    next_window()  # because another test may have started the drain of the current window
    yield shared_runs
    shared_runs.be_quiet()


def next_window() -> None:
    """Wait until the next window begins, so that the following steps happen in the same window."""
    time.sleep(WINDOW - time.time() % WINDOW + 0.05)


# --- uploads ---------------------------------------------------------------------------------------------------------


def test_a_lone_file_takes_one_task_which_stays_until_its_window_is_over(runs: Runs) -> None:
    dispatched = runs.upload("done", "lone")
    assert dispatched.execution_arn is not None
    window = int(dispatched.execution_arn.rpartition("-")[2])
    ended = runs.end(dispatched.execution_arn)
    (start,) = runs.starts()
    assert (ended["status"], runs.is_done("lone")) == ("SUCCEEDED", True)
    assert start["stay_until"] == (window + 1) * WINDOW + 5
    assert datetime.now(UTC).timestamp() > start["stay_until"]
    inside_of_the_map = 1
    assert len(ended["states"]) + inside_of_the_map <= 6


def test_uploads_of_one_window_share_its_drain_whichever_process_starts_it(runs: Runs) -> None:
    """Every Lambda process calls StartExecution, which returns the execution that is already running."""
    next_window()
    arns = {runs.upload("done", f"shared {number}").execution_arn for number in range(5)}
    (arn,) = arns
    assert arn is not None
    assert runs.end(arn)["status"] == "SUCCEEDED"
    assert len(runs.starts()) == 1
    assert all(runs.is_done(f"shared {number}") for number in range(5))


def test_a_window_whose_drain_has_ended_is_covered(runs: Runs) -> None:
    """Step Functions rejects the drain's name. No second drain is needed, because the task stayed until after the
    window's end, and so received every message that was sent in the window."""
    next_window()
    first = runs.dispatcher()
    window = int(time.time() // WINDOW)
    arn = first.dispatch(saying("done", "first")).execution_arn
    assert arn is not None
    runs.end(arn)
    name, machine = upload_drain(window), runs.outputs["StateMachineArn"]
    assert start_drain(runs.machines, machine, name, {"source": "upload"}) is None


@pytest.mark.parametrize("seconds_before_the_end", [0.3, 1.0, 2.0])
def test_a_file_that_arrives_as_the_last_task_leaves_is_not_left_behind(
    runs: Runs, seconds_before_the_end: float
) -> None:
    """The file arrives at about the time of the task's last receive call. Either this task or the drain of a later
    window processes it."""
    next_window()
    arn = runs.upload("done", f"before {seconds_before_the_end}").execution_arn
    assert arn is not None
    (start,) = eventually(runs.starts, seconds=30)
    time.sleep(max(0.0, start["stay_until"] + 2 - seconds_before_the_end - time.time()))
    last = runs.upload("done", f"last {seconds_before_the_end}")
    assert eventually(lambda: runs.is_done(f"last {seconds_before_the_end}"), seconds=60)
    assert last.drain == "started"


def test_below_the_maximum_each_window_launches_a_task(runs: Runs) -> None:
    """A drain does not rely on a task that is already running, because that task may be in its last receive call."""
    runs.upload("work", "long", seconds=15)
    eventually(lambda: len(runs.starts()) == 1, seconds=30)
    next_window()
    runs.upload("done", "beside")
    assert eventually(lambda: len(runs.starts()) == 2, seconds=30)
    assert eventually(lambda: runs.is_done("beside"), seconds=30)


def test_at_the_maximum_a_drain_waits_for_its_window_to_end_and_then_relies_on_the_tasks(runs: Runs) -> None:
    for number in range(MAX_TASKS):
        runs.upload("work", f"busy {number}", seconds=WINDOW + SETTLE + 14)
        runs.wait_for_starts(number + 1)
        next_window()
    arn = runs.upload("done", "waits").execution_arn
    assert arn is not None
    ended = runs.end(arn)
    assert (ended["status"], ended["states"][-1]) == ("SUCCEEDED", "Other tasks drain")
    assert "Wait for the window to end" in ended["states"]
    assert eventually(lambda: runs.is_done("waits"), seconds=60), "by a task that was already running"
    assert len(runs.starts()) == MAX_TASKS


def test_at_the_maximum_a_drain_launches_a_task_once_the_others_have_gone(runs: Runs) -> None:
    for number in range(MAX_TASKS):
        runs.upload("hang", f"hangs {number}")
        runs.wait_for_starts(number + 1)
        next_window()
    arn = runs.upload("done", "launched").execution_arn
    assert arn is not None
    eventually(lambda: "Wait for the window to end" in runs.states(arn), seconds=10)
    for execution in {start["execution"] for start in runs.starts()}:
        runs.machines.stop_execution(executionArn=execution)  # so that no successors are launched
    ended = runs.end(arn)
    assert (ended["states"][-1], len(runs.starts(arn))) == ("Drained", 1)
    assert runs.is_done("launched")


def test_a_throttled_start_raises_and_the_next_upload_starts_the_drain(runs: Runs) -> None:
    class Throttled:
        def start_execution(self, **_: Any) -> Any:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "StartExecution")

    dispatcher = runs.dispatcher(step_functions=Throttled())
    with pytest.raises(ClientError):
        dispatcher.dispatch(saying("done", "throttled"))
    assert runs.upload("done", "again").drain == "started"
    assert eventually(lambda: runs.is_done("throttled"), seconds=30)


# --- tasks that die, and uploads that are returned -------------------------------------------------------------------


def test_the_message_of_a_killed_task_is_received_by_the_task_that_replaces_it(runs: Runs) -> None:
    arn = runs.upload("kill", "survivor").execution_arn
    assert arn is not None
    ended = runs.end(arn)
    first, second = runs.starts(arn)
    assert (ended["status"], runs.is_done("survivor")) == ("SUCCEEDED", True)
    assert second["stay_until"] >= first["at"] + VISIBILITY, "it stays until the message is visible again"


def test_an_upload_that_is_returned_is_received_by_a_second_task(runs: Runs) -> None:
    arn = runs.upload("return", "again later", seconds=8).execution_arn
    assert arn is not None
    assert runs.end(arn)["status"] == "SUCCEEDED"
    assert (len(runs.starts(arn)), runs.is_done("again later")) == (2, True)


def test_a_file_that_kills_its_tasks_goes_to_the_dead_letter_queue_and_the_others_are_done(runs: Runs) -> None:
    next_window()
    arn = runs.upload("kill", "poison", always=True).execution_arn
    for number in range(5):
        runs.upload("done", f"good {number}")
    assert arn is not None
    assert runs.end(arn)["status"] == "SUCCEEDED"
    assert all(runs.is_done(f"good {number}") for number in range(5))
    assert (runs.dead_letters(), len(runs.starts())) == (1, DELIVERIES + 1)


def test_a_task_that_hangs_is_stopped_and_replaced(runs: Runs) -> None:
    with runs.definition_with(f'"TimeoutSeconds":{TASK_SECONDS}', '"TimeoutSeconds":8'):
        arn = runs.upload("hang", "hung").execution_arn
        assert arn is not None
        eventually(lambda: len(runs.starts(arn)) == 2, seconds=60)
    assert eventually(lambda: runs.is_done("hung"), seconds=60)


def test_concurrent_drains_leave_nothing_behind_and_keep_to_the_maximum(runs: Runs) -> None:
    for number in range(8):
        runs.upload("work", f"both {number}", seconds=0.5)
        time.sleep(1)
    assert eventually(lambda: all(runs.is_done(f"both {number}") for number in range(8)), seconds=60)
    executions = {start["execution"] for start in runs.starts()}
    assert len(executions) >= 2
    assert runs.most_tasks_at_once(executions) == MAX_TASKS


def test_a_drain_that_times_out_stops_its_tasks_and_the_next_sweep_does_the_rest(runs: Runs) -> None:
    with runs.definition_with(f'"TimeoutSeconds":{DRAIN_SECONDS}', '"TimeoutSeconds":8'):
        arn = runs.upload("hang", "outlived").execution_arn
        assert arn is not None
        assert runs.end(arn)["status"] == "TIMED_OUT"
    eventually(lambda: not runs.running_tasks(), seconds=30)
    time.sleep(VISIBILITY)
    assert runs.sweep()["status"] == "SUCCEEDED"
    assert runs.is_done("outlived")


# --- tasks that are not launched -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ThrottlingException", "ServerException", "InvalidParameterException"])
def test_a_launch_that_fails_temporarily_is_retried(runs: Runs, code: str) -> None:
    runs.refusals.add(code, times=3)
    arn = runs.upload("done", f"after {code}").execution_arn
    assert arn is not None
    assert runs.end(arn)["status"] == "SUCCEEDED"
    assert (runs.is_done(f"after {code}"), runs.refusals.left()) == (True, False)


@pytest.mark.parametrize("code", ["ClientException", "BlockedException", "ClusterNotFoundException"])
def test_a_launch_that_fails_permanently_fails_the_drain_and_names_the_error(runs: Runs, code: str) -> None:
    next_window()
    runs.refusals.add(code)
    arn, *others = [runs.upload("done", f"refused {code} {number}").execution_arn for number in range(3)]
    assert arn is not None
    assert {*others} <= {arn, None}, "StartExecution returns the running execution, or the name has been used"
    ended = runs.end(arn)
    assert (ended["status"], ended["error"]) == ("FAILED", "QueueNotDrained")
    assert code in ended["cause"] or code.removesuffix("Exception") in ended["cause"]
    assert runs.outputs["QueueUrl"] in ended["cause"]
    assert runs.sweep()["status"] == "SUCCEEDED", "nothing is lost"
    assert all(runs.is_done(f"refused {code} {number}") for number in range(3))


def test_a_drain_whose_tasks_all_fail_gives_up_and_gives_their_exit_code(runs: Runs) -> None:
    """The limit is lowered from 20 launches more than a message's maximum deliveries to 3 launches."""
    runs.plan(*[1] * 10)
    with runs.definition_with(f"launches >= 20 + {DELIVERIES}", "launches >= 3"):
        arn = runs.upload("done", "never").execution_arn
        assert arn is not None
        ended = runs.end(arn)
    assert (ended["status"], ended["error"], len(runs.starts(arn))) == ("FAILED", "QueueNotDrained", 3)
    assert '"ExitCode": 1' in ended["cause"]


@pytest.mark.parametrize("statement", ["LaunchTask", "PassTaskRoles", "ReceiveTaskEvents"])
def test_a_role_without_a_permission_to_launch_fails_the_drain_and_says_so(runs: Runs, statement: str) -> None:
    with runs.without(statement):
        arn = runs.upload("done", f"without {statement}").execution_arn
        assert arn is not None
        ended = runs.end(arn)
    assert (ended["error"], runs.starts(arn)) == ("QueueNotDrained", [])
    assert "is not authorized to perform" in ended["cause"]


def test_an_upload_whose_drain_cannot_count_tasks_still_gets_a_task(runs: Runs) -> None:
    with runs.without("CountTasks"):
        arn = runs.upload("done", "not counted").execution_arn
        assert arn is not None
        assert runs.end(arn)["status"] == "SUCCEEDED"
    assert runs.is_done("not counted")


@pytest.mark.parametrize("statement", ["CountTasks", "CountMessages", "LookForBatchNotesAndPause"])
def test_a_scheduled_drain_that_lacks_a_permission_fails_and_launches_nothing(runs: Runs, statement: str) -> None:
    with runs.without(statement):
        ended = runs.sweep()
    assert (ended["status"], ended["error"], runs.starts()) == ("FAILED", "QueueNotDrained", [])
    assert "is not authorized to perform" in ended["cause"]


# --- backlog ---------------------------------------------------------------------------------------------------------


def test_a_backlog_launches_tasks_up_to_the_maximum(runs: Runs) -> None:
    for number in range(6):
        runs.send("work", f"deep {number}", seconds=1)
    ended = runs.end(runs.start({"source": "backlog", "tasks": 9}))
    assert (ended["status"], len(runs.starts())) == ("SUCCEEDED", MAX_TASKS)
    assert all(runs.is_done(f"deep {number}") for number in range(6))


def test_a_backlog_launches_no_task_if_enough_are_running(runs: Runs) -> None:
    for number in range(MAX_TASKS):
        runs.upload("work", f"enough {number}", seconds=8)
        runs.wait_for_starts(number + 1)
        next_window()
    ended = runs.end(runs.start({"source": "backlog", "tasks": MAX_TASKS}))
    assert (ended["states"][-1], len(runs.starts())) == ("Drained", MAX_TASKS)


# --- schedule --------------------------------------------------------------------------------------------------------


def test_the_schedule_launches_nothing_if_nothing_waits(runs: Runs) -> None:
    ended = runs.sweep()
    assert (ended["status"], ended["states"][-1], runs.starts()) == ("SUCCEEDED", "Nothing to do", [])


@pytest.mark.parametrize(("messages", "tasks"), [(1, 1), (4, 1), (5, 2), (12, MAX_TASKS)])
def test_the_schedule_launches_as_many_tasks_as_the_messages_need(runs: Runs, messages: int, tasks: int) -> None:
    for number in range(messages):
        runs.send("work", f"counted {messages} {number}", seconds=0.5)
    assert runs.sweep()["status"] == "SUCCEEDED"
    assert len(runs.starts()) == tasks
    assert all(runs.is_done(f"counted {messages} {number}") for number in range(messages))


def test_an_execution_without_input_behaves_like_a_scheduled_one(runs: Runs) -> None:
    """A person can start such an execution in the console."""
    runs.send("done", "by hand")
    assert runs.end(runs.start({}))["status"] == "SUCCEEDED"
    assert runs.is_done("by hand")


def test_an_old_batch_note_gets_a_task_and_a_fresh_one_does_not(runs: Runs) -> None:
    bucket = runs.outputs["PublishedBucket"]
    runs.s3.put_object(Bucket=bucket, Key="batches/task/1.json", Body=b"{}")
    written = runs.s3.head_object(Bucket=bucket, Key="batches/task/1.json")["LastModified"]
    try:
        assert runs.sweep()["states"][-1] == "Nothing to do"
        old = written + timedelta(seconds=VISIBILITY + 2)
        time.sleep(max(0.0, (old - datetime.now(UTC)).total_seconds()))
        assert runs.sweep()["states"][-1] == "Drained"
    finally:
        runs.s3.delete_object(Bucket=bucket, Key="batches/task/1.json")
    assert len(runs.starts()) == 1


def test_during_a_pause_uploads_are_queued_and_the_schedule_launches_nothing(runs: Runs) -> None:
    bucket = runs.outputs["PublishedBucket"]
    runs.s3.put_object(Bucket=bucket, Key=PAUSE_KEY, Body=b"{}")
    try:
        assert runs.upload("done", "paused").drain == "paused"
        ended = runs.sweep()
        assert (ended["states"][-1], runs.starts()) == ("Nothing to do", [])
    finally:
        runs.s3.delete_object(Bucket=bucket, Key=PAUSE_KEY)
    assert runs.sweep()["states"][-1] == "Drained"
    assert runs.is_done("paused")


def test_after_a_pause_one_drain_processes_what_waited_and_what_arrives_in_its_window(runs: Runs) -> None:
    """The Lambda starts no drain in a window for which it remembers one, although that drain's task left because of the
    pause. The drain that `sluice resume` starts takes its place."""
    pause = Pause(runs.outputs["PublishedBucket"], runs.s3)
    pause.begin()
    runs.upload("done", "before resume")
    pause.end()
    execution = runs.drains().start()
    start = eventually(lambda: runs.starts(execution), seconds=30)[0]
    assert start["stay_until"] >= start["at"] - WINDOW
    runs.send("done", "after resume")
    assert runs.end(execution)["status"] == "SUCCEEDED"
    assert runs.is_done("before resume")
    assert runs.is_done("after resume")
