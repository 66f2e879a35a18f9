"""Tests that after any fault, once everything is quiet, all services agree about an upload.

Each service must show the following:

- The queue has no message for the upload, and neither has the dead-letter queue.
- In Step Functions, every drain has succeeded.
- In ECS, all tasks that were launched have stopped, with exit codes that the fault explains. The last exit code is 0.
- Prefect has one flow run, whose state agrees with the receipt. If the run was live, the receipt contains its ID. If
  Prefect was down, the run was recorded afterwards.
- The receipt has the expected status, published or rejected.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blocks.settings import CONTRACTS
from flows.pipeline.receipt import Status
from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import good_orders
from tests.faults.bench import kept_promises
from tests.faults.catalogue import fault
from tests.faults.saboteur import Sabotage, as_variable
from tests.faults.step_contracts import hungry_contracts
from tests.restart import restart_prefect

pytestmark = pytest.mark.cloud
# The file that tests/emulator/run_task_answers.py reads. That module can be imported only in MiniStack's environment.
_RUN_TASK_ANSWERS = "run_task_answers.jsonl"
_SABOTEUR = ["python", "-m", "tests.faults.saboteur"]


@dataclass(frozen=True)
class ExpectedStory:
    """The expected state of an upload in every service.

    Attributes:
        flow_run: the name of the flow run's state.
        observed: whether the flow run was live.
        first_exits: the exit codes of the first tasks, or ECS's stop codes for tasks that did not exit by themselves.
            The last task must exit with 0.
        first_reason: the reason that ECS gives for the end of the first task's container.
    """

    receipt: Status = Status.PUBLISHED
    flow_run: str = "Completed"
    observed: bool = True
    first_exits: tuple[int | str, ...] = ()
    first_reason: str | None = None


@dataclass
class Story:
    """An upload, and the tasks and drains that were started for it."""

    chain: Chain
    name: str

    def __post_init__(self) -> None:
        self.chain.settle()
        self._tasks_before = {task["taskArn"] for task in self._every_task()}
        self._drains_before = {drain["executionArn"] for drain in self.chain.drains()}

    def hand_in(self, body: bytes = b"") -> UploadMessage:
        """Upload the file, and deliver its event to the Lambda."""
        upload = self.chain.upload(f"incoming/orders/story-{self.name}.csv", body or good_orders(3))
        assert self.chain.deliver(self.chain.event_of(upload))["error"] is None
        return upload

    def tasks(self) -> list[dict[str, Any]]:
        """Return the tasks that were launched since the story began, oldest first."""
        own = [task for task in self._every_task() if task["taskArn"] not in self._tasks_before]
        return sorted(own, key=lambda task: str(task["createdAt"]))

    def drains(self) -> list[dict[str, Any]]:
        """Return the drains that were started since the story began."""
        return [drain for drain in self.chain.drains() if drain["executionArn"] not in self._drains_before]

    def wait_for_a_stop(self, what: str) -> None:
        """Wait until one of the story's tasks has stopped."""
        self.chain.wait_for(lambda: any(task["lastStatus"] == "STOPPED" for task in self.tasks()), what)

    def exits(self) -> list[int | str]:
        """Return the exit code of each task, or ECS's stop code if the task did not exit by itself."""
        return [
            task["containers"][0]["exitCode"] if task["stopCode"] == "EssentialContainerExited" else task["stopCode"]
            for task in self.tasks()
        ]

    def _every_task(self) -> list[dict[str, Any]]:
        cluster, family = self.chain.outputs["ClusterArn"], self.chain.outputs["TaskFamily"]
        arns = [
            arn
            for status in ("RUNNING", "STOPPED")
            for arn in self.chain.ecs.list_tasks(cluster=cluster, family=family, desiredStatus=status)["taskArns"]
        ]
        return list(self.chain.ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"]) if arns else []


def _check_that_all_agree(story: Story, upload: UploadMessage, expected: ExpectedStory) -> None:
    chain = story.chain
    chain.done(upload, seconds=180)
    chain.settle()
    receipt = kept_promises(chain, upload, expected.receipt)
    assert chain.messages("DeadLetterQueueUrl") == {"waiting": 0, "held": 0}
    assert {drain["status"] for drain in story.drains()} == {"SUCCEEDED"}, story.drains()
    exits = story.exits()
    assert tuple(exits[: len(expected.first_exits)]) == expected.first_exits, exits
    assert exits[-1] == 0, exits
    if expected.first_reason:
        assert story.tasks()[0]["containers"][0]["reason"] == expected.first_reason
    (run,) = chain.wait_for(lambda: chain.flow_runs(upload), "the flow run")
    assert (run["state"]["name"], receipt.observed) == (expected.flow_run, expected.observed)
    assert receipt.chain.flow_run_id == (run["id"] if expected.observed else None)
    assert chain.keys("batches/") == []


# --- the faults -------------------------------------------------------------------------------------------------


def _published(story: Story, _folder: Path) -> UploadMessage:
    return story.hand_in()


def _rejected(story: Story, _folder: Path) -> UploadMessage:
    return story.hand_in(b"order_id,quantity\nORD-00000001,1\n")


def _exit_1(story: Story, _folder: Path) -> UploadMessage:
    with story.chain.tasks_that(["false"]):
        upload = story.hand_in()
        story.wait_for_a_stop("the task to fail")
    return upload


def _killed(story: Story, _folder: Path) -> UploadMessage:
    killing = as_variable([Sabotage(on="sqs.ReceiveMessage", do="kill_after")])
    with story.chain.tasks_that(_SABOTEUR, environment=killing):
        upload = story.hand_in()
        story.wait_for_a_stop("the task to be killed")
    return upload


def _out_of_memory(story: Story, folder: Path) -> UploadMessage:
    shutil.copytree(CONTRACTS, folder / "contracts")
    hungry = hungry_contracts(folder / "contracts")
    with story.chain.tasks_that(memory_mib=1024, environment=hungry):
        upload = story.hand_in()
        story.wait_for_a_stop("the task to be killed")
    return upload


def _stopped_by_ecs(story: Story, folder: Path) -> UploadMessage:
    gate = folder / "stop.gate"
    held = as_variable([Sabotage(on="s3.GetObject", where="/incoming/", do="hold", gate=str(gate))])
    with story.chain.tasks_that(_SABOTEUR, environment=held):
        upload = story.hand_in()
        story.chain.wait_for(gate.with_suffix(".reached").exists, "the task to be at work")
    (task,) = story.tasks()
    cluster = story.chain.outputs["ClusterArn"]
    story.chain.ecs.stop_task(cluster=cluster, task=task["taskArn"], reason="Spot interruption")
    return upload


def _never_starts(story: Story, _folder: Path) -> UploadMessage:
    with story.chain.tasks_that(["/no/such/program"]):
        upload = story.hand_in()
        story.wait_for_a_stop("the task to fail to start")
    return upload


def _prefect_down(story: Story, _folder: Path) -> UploadMessage:
    """Keep Prefect down until the task has ended. Then let a task of the sweep record the flow run."""
    chain = story.chain
    server = chain.cloud.prefect
    assert server is not None
    server.stop()
    try:
        upload = story.hand_in()
        chain.done(upload)
        chain.settle()
        assert chain.keys("batches/")
    finally:
        restart_prefect(chain.cloud)
    wait_until_recorded(chain, upload)
    return upload


def _throttled(story: Story, _folder: Path) -> UploadMessage:
    answers = [
        (400, {"__type": "ThrottlingException", "message": "Rate exceeded"}),
        (400, {"__type": "AmazonECSException", "message": "Capacity is unavailable at this time"}),
        (200, {"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]}),
    ]
    lines = [json.dumps({"status": status, "body": body}) for status, body in answers]
    (story.chain.cloud.state_dir / _RUN_TASK_ANSWERS).write_text("\n".join(lines) + "\n")
    return story.hand_in()


def wait_until_recorded(chain: Chain, upload: UploadMessage) -> None:
    """Start drains as the schedule does until the upload has a flow run."""

    def is_recorded() -> bool:
        if not chain.flow_runs(upload) and not chain.drains("RUNNING"):
            chain.sweep()
        return bool(chain.flow_runs(upload))

    chain.wait_for(is_recorded, "the sweep's task to record the upload", 120)


_Row = tuple[Callable[[Story, Path], UploadMessage], ExpectedStory]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            (_published, ExpectedStory()),
            id="published",
            marks=fault("State agreement", "no fault: published", expected="drained, published, Completed, exit 0"),
        ),
        pytest.param(
            (_rejected, ExpectedStory(Status.REJECTED, "Failed")),
            id="rejected",
            marks=fault("State agreement", "no fault: rejected", expected="drained, rejected, Failed, exit 0"),
        ),
        pytest.param(
            (_exit_1, ExpectedStory(first_exits=(1,))),
            id="exit 1",
            marks=fault(
                "State agreement", "a task exits with 1", expected="drained, published, Completed, exits 1 and 0"
            ),
        ),
        pytest.param(
            (_killed, ExpectedStory(first_exits=(137,))),
            id="killed",
            marks=[
                fault("State agreement", "a task is killed", expected="drained, published, Completed, exits 137 and 0"),
                fault(
                    "Queue and task",
                    "a task that dies inside the visibility timeout (the stranded message)",
                    expected="its drain launches another task once the message is visible again",
                ),
            ],
        ),
        pytest.param(
            (
                _out_of_memory,
                ExpectedStory(
                    first_exits=(137,), first_reason="OutOfMemoryError: Container killed due to memory usage"
                ),
            ),
            id="out of memory",
            marks=fault(
                "Queue and task",
                "a task out of memory",
                expected="ECS reports exit code 137 and OutOfMemoryError; a task with more memory publishes",
            ),
        ),
        pytest.param(
            (_stopped_by_ecs, ExpectedStory(first_exits=("UserInitiated",))),
            id="stopped by ECS",
            marks=fault(
                "Queue and task",
                "a task stopped by ECS",
                expected="message returned, exit 143, then another task publishes",
            ),
        ),
        pytest.param(
            (_never_starts, ExpectedStory(first_exits=("TaskFailedToStart",))),
            id="never starts",
            marks=fault(
                "State agreement",
                "a task never starts",
                expected="drained, published, Completed, no exit code and then 0",
            ),
        ),
        pytest.param(
            (_prefect_down, ExpectedStory(observed=False)),
            id="Prefect down",
            marks=fault(
                "State agreement",
                "Prefect down",
                expected="drained, published; its flow run is recorded once Prefect is back",
            ),
        ),
        pytest.param(
            (_throttled, ExpectedStory()),
            id="throttled",
            marks=[
                fault(
                    "State agreement",
                    "RunTask throttled, then without capacity, then with `Failures` in the response",
                    expected="launched once ECS accepts the call: drained, published, Completed, exit 0",
                ),
            ],
        ),
    ],
)
def test_all_services_agree_once_everything_is_quiet(chain: Chain, tmp_path: Path, row: _Row) -> None:
    happens, expected = row
    story = Story(chain, happens.__name__.strip("_").replace("_", "-"))
    _check_that_all_agree(story, happens(story, tmp_path), expected)


@fault(
    "State agreement",
    "a task hangs",
    expected="the task is stopped at its time limit, and its drain launches another one, which publishes",
)
def test_a_hanging_task_does_not_block_its_upload(chain: Chain) -> None:
    story = Story(chain, "hangs")
    with chain.tasks_that(["sleep", "900"]):
        upload = story.hand_in()
        chain.wait_for(chain.tasks, "the task to hang")
    _check_that_all_agree(story, upload, ExpectedStory(first_exits=("UserInitiated",)))
