"""After any fault, once everything is quiet, all services agree about an upload.

What each of them must show:

- the queue: no message of the upload is left, and none in the dead-letter queue;
- Step Functions: the execution has ended with the status of the receipt;
- ECS: the tasks that were launched for it have stopped, each with the exit code that the fault explains, the last one
  with 0 unless another upload's task did the work;
- Prefect: one flow run, in the state of the receipt, whose id the receipt names; none if Prefect was down;
- the receipt: published or rejected, and the attempt.
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
# tests/emulator/run_task_answers.py, which only the embedded cloud's own environment can import
_RUN_TASK_ANSWERS = "run_task_answers.jsonl"
_SABOTEUR = ["python", "-m", "tests.faults.saboteur"]


@dataclass(frozen=True)
class ExpectedStory:
    """The expected state of one upload in every service.

    Attributes:
        first_exits: the exit codes of the tasks before the last one, or ECS's word for how they ended.
        last_exit: that of the last task; None when another upload's task may have done the work.
        first_reason: the reason that ECS gives for the first task's container.
    """

    execution: str = "SUCCEEDED"
    error: str | None = None
    receipt: Status = Status.PUBLISHED
    flow_run: str | None = "Completed"
    first_exits: tuple[int | str, ...] = ()
    last_exit: int | None = 0
    first_reason: str | None = None


def _handed_in(chain: Chain, name: str, body: bytes = b"") -> UploadMessage:
    upload = chain.upload(f"incoming/orders/story-{name}.csv", body or good_orders(3))
    assert chain.deliver(chain.event_of(upload))["error"] is None
    return upload


def _tasks_of(chain: Chain, upload: UploadMessage) -> list[dict[str, Any]]:
    """Return the tasks that were launched for an upload, oldest first."""
    cluster, family = chain.outputs["ClusterArn"], chain.outputs["TaskFamily"]
    arns = [
        arn
        for status in ("RUNNING", "STOPPED")
        for arn in chain.ecs.list_tasks(cluster=cluster, family=family, desiredStatus=status)["taskArns"]
    ]
    described = chain.ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    own = [task for task in described if upload.run_id in json.dumps(task["overrides"])]
    return sorted(own, key=lambda task: str(task["createdAt"]))


def _stopped(chain: Chain, upload: UploadMessage) -> bool:
    return any(task["lastStatus"] == "STOPPED" for task in _tasks_of(chain, upload))


def _all_stopped(chain: Chain, upload: UploadMessage) -> list[dict[str, Any]] | None:
    tasks = _tasks_of(chain, upload)
    return tasks if all(task["lastStatus"] == "STOPPED" for task in tasks) else None


def _exits(chain: Chain, upload: UploadMessage) -> list[int | str]:
    """Return the exit code of each task, or ECS's stop code if it did not exit by itself."""
    tasks = chain.wait_for(lambda: _all_stopped(chain, upload), "its tasks to have stopped")
    return [
        task["containers"][0]["exitCode"] if task["stopCode"] == "EssentialContainerExited" else task["stopCode"]
        for task in tasks
    ]


def _all_tell(chain: Chain, upload: UploadMessage, story: ExpectedStory) -> None:
    execution = chain.ended(upload, seconds=150)
    assert (execution["status"], execution.get("error")) == (story.execution, story.error), execution
    receipt = kept_promises(chain, upload, story.receipt)
    chain.wait_for(chain.queue_is_empty, "the queue to be empty")
    assert chain.messages("DeadLetterQueueUrl") == {"waiting": 0, "held": 0}
    exits = _exits(chain, upload)
    assert tuple(exits[: len(story.first_exits)]) == story.first_exits, exits
    if story.first_reason:
        assert _tasks_of(chain, upload)[0]["containers"][0]["reason"] == story.first_reason
    if story.last_exit is not None:
        assert exits[-1] == story.last_exit
        assert receipt.chain.execution_arn == execution["executionArn"]
    runs = [(run["state"]["name"], run["id"]) for run in chain.flow_runs(upload)]
    assert runs == ([(story.flow_run, receipt.chain.flow_run_id)] if story.flow_run else [])
    assert receipt.observed is bool(story.flow_run)


# --- what happens to the upload ---------------------------------------------------------------------------------


def _published(chain: Chain, _folder: Path) -> UploadMessage:
    return _handed_in(chain, "published")


def _rejected(chain: Chain, _folder: Path) -> UploadMessage:
    return _handed_in(chain, "rejected", b"order_id,quantity\nORD-00000001,1\n")


def _exit_1(chain: Chain, _folder: Path) -> UploadMessage:
    with chain.tasks_that(["false"]):
        upload = _handed_in(chain, "exit-1")
        chain.wait_for(lambda: _stopped(chain, upload), "the task to fail")
    return upload


def _killed(chain: Chain, _folder: Path) -> UploadMessage:
    killing = as_variable([Sabotage(on="sqs.ReceiveMessage", do="kill_after")])
    with chain.tasks_that(_SABOTEUR, environment=killing):
        upload = _handed_in(chain, "killed")
        chain.wait_for(lambda: _stopped(chain, upload), "the task to be killed")
    return upload


def _out_of_memory(chain: Chain, folder: Path) -> UploadMessage:
    shutil.copytree(CONTRACTS, folder / "contracts")
    hungry = hungry_contracts(folder / "contracts")
    with chain.tasks_that(memory_mib=1024, environment=hungry):
        upload = _handed_in(chain, "out-of-memory")
        chain.wait_for(lambda: _stopped(chain, upload), "the task to be killed")
    return upload


def _stopped_by_ecs(chain: Chain, folder: Path) -> UploadMessage:
    gate = folder / "stop.gate"
    held = as_variable([Sabotage(on="s3.HeadObject", where="/incoming/", do="hold", gate=str(gate))])
    with chain.tasks_that(_SABOTEUR, environment=held):
        upload = _handed_in(chain, "stopped")
        chain.wait_for(gate.with_suffix(".reached").exists, "the task to be at work")
    (task,) = _tasks_of(chain, upload)
    chain.ecs.stop_task(cluster=chain.outputs["ClusterArn"], task=task["taskArn"], reason="Spot interruption")
    return upload


def _never_starts(chain: Chain, _folder: Path) -> UploadMessage:
    with chain.tasks_that(["/no/such/program"]):
        upload = _handed_in(chain, "never-starts")
        chain.wait_for(lambda: _stopped(chain, upload), "the task to fail to start")
    return upload


def _prefect_down(chain: Chain, _folder: Path) -> UploadMessage:
    server = chain.cloud.prefect
    assert server is not None
    server.stop()
    try:
        upload = _handed_in(chain, "prefect-down")
        chain.ended(upload)
    finally:
        restart_prefect(chain.cloud)
    return upload


def _throttled(chain: Chain, _folder: Path) -> UploadMessage:
    answers = [
        (400, {"__type": "ThrottlingException", "message": "Rate exceeded"}),
        (400, {"__type": "AmazonECSException", "message": "Capacity is unavailable at this time"}),
        (200, {"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]}),
    ]
    lines = [json.dumps({"status": status, "body": body}) for status, body in answers]
    (chain.cloud.state_dir / _RUN_TASK_ANSWERS).write_text("\n".join(lines) + "\n")
    return _handed_in(chain, "throttled")


@pytest.fixture(scope="module", autouse=True)
def hanging(chain: Chain) -> UploadMessage:
    """Return an upload whose task hangs from the start until the state machine's timeout."""
    with chain.tasks_that(["sleep", "900"]):
        upload = _handed_in(chain, "hangs")
        chain.wait_for(chain.tasks, "the task to hang")
    return upload


_Row = tuple[Callable[[Chain, Path], UploadMessage], ExpectedStory]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            (_published, ExpectedStory()),
            id="published",
            marks=fault("State agreement", "no fault: published", expected="SUCCEEDED, published, Completed, exit 0"),
        ),
        pytest.param(
            (_rejected, ExpectedStory("FAILED", "DataRejected", Status.REJECTED, "Failed")),
            id="rejected",
            marks=fault(
                "State agreement", "no fault: rejected", expected="FAILED with DataRejected, rejected, Failed, exit 0"
            ),
        ),
        pytest.param(
            (_exit_1, ExpectedStory(first_exits=(1,))),
            id="exit 1",
            marks=fault(
                "State agreement", "a task exits with 1", expected="SUCCEEDED, published, Completed, exits 1 and 0"
            ),
        ),
        pytest.param(
            (_killed, ExpectedStory(first_exits=(137,))),
            id="killed",
            marks=[
                fault("State agreement", "a task is killed", expected="SUCCEEDED, published, Completed, exits 137 … 0"),
                fault(
                    "Queue and task",
                    "a task that dies inside the visibility timeout (the stranded message)",
                    expected="its execution launches tasks until the message is visible again and processed",
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
                expected="SUCCEEDED, published, Completed, no exit code and 0",
            ),
        ),
        pytest.param(
            (_prefect_down, ExpectedStory(flow_run=None)),
            id="Prefect down",
            marks=fault(
                "State agreement", "Prefect down", expected="SUCCEEDED, published unobserved, no flow run, exit 0"
            ),
        ),
        pytest.param(
            (_throttled, ExpectedStory()),
            id="throttled",
            marks=[
                fault(
                    "State agreement",
                    "RunTask throttled, then without capacity, then with `Failures` in the response",
                    expected="launched at the fourth attempt: SUCCEEDED, published, Completed, one task, exit 0",
                ),
            ],
        ),
    ],
)
def test_all_services_agree_once_everything_is_quiet(chain: Chain, tmp_path: Path, row: _Row) -> None:
    happens, story = row
    _all_tell(chain, happens(chain, tmp_path), story)


@fault(
    "State agreement",
    "a task hangs",
    expected="another upload's task does the work; the hanging one is eventually stopped; SUCCEEDED, published",
)
def test_a_hanging_task_does_not_keep_its_upload(chain: Chain, hanging: UploadMessage) -> None:
    assert chain.has_receipt(hanging), "the tasks of other uploads drained the queue"
    _all_tell(chain, hanging, ExpectedStory(first_exits=("UserInitiated",), last_exit=None))
