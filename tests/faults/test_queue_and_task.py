"""Tests of faults of the queue and of tasks: the queue rejects calls, or a task dies, is stopped, or runs out of a
resource."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.chain.files import good_orders
from tests.faults.bench import Bench, Case, Outcome, Worker, arn_of, eventually
from tests.faults.catalogue import fault
from tests.faults.saboteur import Sabotage
from tests.faults.step_contracts import GATE_VARIABLE, slow_contracts

pytestmark = pytest.mark.cloud
_ONE_TRY = {"SLUICE_RETRY_DELAY_SECONDS": "5"}  # longer than a worker waits for messages in an empty queue
_AREA: Literal["Queue and task"] = "Queue and task"


# --- messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(
            "not JSON at all",
            "not JSON",
            marks=fault(_AREA, "message not JSON", expected="dead-letter queue; the log gives the reason; no receipt"),
        ),
        pytest.param(
            '{"schema": 999, "key": "incoming/orders/x.csv"}',
            "schema",
            marks=fault(
                _AREA, "message of an unknown schema version", expected="dead-letter queue; the log names the schema"
            ),
        ),
    ],
)
def test_a_message_that_cannot_be_parsed_is_moved_to_the_dead_letter_queue(bench: Bench, body: str, says: str) -> None:
    case = bench.case(deliver=False)
    case.send(body)
    outcome = case.work()
    assert outcome.exit_code == 0, "nothing is left that another task could do"
    assert says in outcome.errors
    assert case.count() == {"waiting": 0, "held": 0}
    assert case.count(case.dead_letter_url) == {"waiting": 1, "held": 0}
    assert not bench.chain.has_receipt(case.upload)


@fault(_AREA, "empty queue", expected="the task stays until its drain no longer needs it, then exits with 0")
def test_a_task_with_an_empty_queue_stays_until_its_drain_no_longer_needs_it(bench: Bench) -> None:
    case = bench.case(deliver=False)
    stay_until = time.time() + 8
    worker = case.start(environment={"SLUICE_STAY_UNTIL": str(stay_until)})
    time.sleep(4)
    case.send()
    assert worker.ended().exit_code == 0
    assert time.time() > stay_until
    case.kept_promises()


@fault(_AREA, "the same message to two workers at the same time", expected="one result")
def test_two_workers_with_the_same_message_publish_once(bench: Bench) -> None:
    case = bench.case()
    case.send()
    workers = [case.start(environment={"SLUICE_RETRY_DELAY_SECONDS": "1"}) for _ in range(2)]
    assert [worker.ended().exit_code for worker in workers] == [0, 0]
    case.work()  # in case a duplicate returned to the queue after both workers had ended
    case.kept_promises()


# --- a worker that dies -----------------------------------------------------------------------------------------

_INTERRUPTIONS = {
    "after receive": Sabotage(on="sqs.ReceiveMessage", do="kill_after"),
    "after data": Sabotage(on="s3.PutObject", where="/data/", do="kill_after"),
    "after receipt": Sabotage(on="s3.PutObject", where="/receipts/", do="kill_after"),
    "before delete": Sabotage(on="sqs.DeleteMessageBatch", do="kill_before"),
    "after delete": Sabotage(on="sqs.DeleteMessageBatch", do="kill_after"),
}
_REFUSED = "delete refused"


@pytest.fixture(scope="module")
def interrupted(bench: Bench) -> dict[str, tuple[Case, Outcome]]:
    """Kill a worker at each point, and reject the deletion of one worker, each with a separate upload. Their messages
    then become visible again while other tests run."""
    points = [*_INTERRUPTIONS, _REFUSED]
    cases = {point: bench.case() for point in points}
    outcomes: dict[str, Outcome] = {}
    with bench.denied(bench.task_role, "sqs:DeleteMessage", cases[_REFUSED].queue_arn):
        for some in (points[:3], points[3:]):
            plans = {point: [_INTERRUPTIONS[point]] if point in _INTERRUPTIONS else [] for point in some}
            workers = {point: cases[point].start(*plan) for point, plan in plans.items()}
            outcomes |= {point: worker.ended() for point, worker in workers.items()}
    return {point: (cases[point], outcomes[point]) for point in points}


@pytest.mark.parametrize(
    ("point", "committed"),
    [
        pytest.param(
            "after receive", False, marks=fault(_AREA, "SIGKILL after receive", expected="delivered again, processed")
        ),
        pytest.param(
            "after data",
            False,
            marks=fault(
                _AREA,
                "SIGKILL after the data, before the receipt",
                expected="the data does not count; processed again, published once",
            ),
        ),
        pytest.param(
            "after receipt",
            True,
            marks=fault(
                _AREA,
                "SIGKILL after the receipt, before the index",
                expected="the next worker finds the receipt and finishes the index",
            ),
        ),
        pytest.param(
            "before delete",
            True,
            marks=fault(_AREA, "SIGKILL after the receipt, before delete", expected="the next worker only deletes"),
        ),
        pytest.param(
            "after delete", True, marks=fault(_AREA, "SIGKILL after delete", expected="nothing is left to do")
        ),
    ],
)
def test_a_worker_killed_at_any_point_leaves_one_result(
    bench: Bench, interrupted: dict[str, tuple[Case, Outcome]], point: str, committed: bool
) -> None:
    case, outcome = interrupted[point]
    assert outcome.was_killed
    assert bench.chain.has_receipt(case.upload) is committed
    if point != "after delete":
        case.wait_until_visible()
        assert case.work().exit_code == 0
    receipt = case.kept_promises()
    assert receipt.chain.receive_count == (1 if committed else 2)


@fault(_AREA, "delete rejected", expected="exit 0; the message is delivered again and the receipt is found")
def test_a_message_that_could_not_be_deleted_is_not_processed_twice(
    interrupted: dict[str, tuple[Case, Outcome]],
) -> None:
    case, outcome = interrupted[_REFUSED]
    assert outcome.exit_code == 0
    assert "AwsRefused" in outcome.errors
    case.wait_until_visible()
    case.work()
    case.kept_promises()


# --- a worker that takes a long time ----------------------------------------------------------------------------


@dataclass
class Overtime:
    """A worker that pauses while it refines a file, the file that releases it, and its environment."""

    case: Case
    worker: Worker
    gate: Path
    environment: dict[str, str]


def _overtime(case: Case) -> Overtime:
    gate = case.folder / "step.gate"
    environment = slow_contracts(case.copy_contracts()) | {GATE_VARIABLE: str(gate)}
    return Overtime(case, case.start(environment=environment), gate, environment)


@pytest.fixture(scope="module")
def overtime(bench: Bench) -> Iterator[dict[str, Overtime]]:
    """Start three workers that pause while they refine a file. One of them is not allowed to extend the visibility
    timeout of its message."""
    cases = {name: bench.case() for name in ("beating", "refused", "stopped")}
    with bench.denied(bench.task_role, "sqs:ChangeMessageVisibility", cases["refused"].queue_arn):
        yield {name: _overtime(case) for name, case in cases.items()}


@fault(
    _AREA,
    "SIGTERM during a preprocessing step",
    expected="the message is returned immediately, nothing is written, exit 143; the next worker publishes",
)
def test_sigterm_returns_the_message_immediately(bench: Bench, overtime: dict[str, Overtime]) -> None:
    at_work = overtime["stopped"]
    case = at_work.case
    case.held_at(at_work.gate)
    at_work.worker.signal(signal.SIGTERM)
    outcome = at_work.worker.ended(30)
    assert outcome.exit_code == 143
    assert outcome.logged("stopped, returning the messages")
    assert case.count() == {"waiting": 1, "held": 0}
    assert not bench.chain.has_receipt(case.upload)
    assert not [key for key in bench.chain.keys("data/") if case.upload.run_id in key]
    at_work.gate.touch()
    assert case.work(environment=at_work.environment).exit_code == 0
    case.kept_promises()


@fault(_AREA, "heartbeat rejected", expected="a second worker receives the message; one result")
@fault(_AREA, "receipt handle expired", expected="exit 0; the worker that holds the message deletes it")
def test_a_rejected_heartbeat_still_gives_one_result(overtime: dict[str, Overtime]) -> None:
    at_work = overtime["refused"]
    case = at_work.case
    case.held_at(at_work.gate)
    case.wait_until_visible()
    second_gate = case.folder / "second.gate"
    second = case.start(environment=at_work.environment | {GATE_VARIABLE: str(second_gate)})
    case.held_at(second_gate)
    second_gate.touch()
    assert second.ended().exit_code == 0
    at_work.gate.touch()
    first = at_work.worker.ended()
    assert first.exit_code == 0
    assert "MessageLost" in first.errors, "its receipt handle was that of an earlier delivery"
    case.kept_promises()


@fault(
    _AREA,
    "work longer than the visibility timeout",
    expected="the heartbeat keeps the message invisible; delivered once",
)
def test_work_longer_than_the_visibility_timeout_is_delivered_once(overtime: dict[str, Overtime]) -> None:
    at_work, other = overtime["beating"], overtime["refused"]
    case = at_work.case
    # Wait until the other worker's message has become visible, which takes longer than the visibility timeout.
    assert eventually(lambda: other.case.count()["held"] == 0 or other.worker.has_logged("done"))
    assert case.count() == {"waiting": 0, "held": 1}
    at_work.gate.touch()
    assert at_work.worker.ended().exit_code == 0
    assert case.kept_promises().chain.receive_count == 1


@fault(
    _AREA,
    "more messages are waiting than one task should process",
    expected="with only the permissions of its role, the task asks for more tasks, and a drain launches them",
)
def test_a_task_that_finds_too_many_messages_asks_for_more_tasks(bench: Bench) -> None:
    case, other = bench.case(), bench.case(deliver=False)
    hold, gate = case.gate("s3.GetObject", "/incoming/")
    worker = case.start(hold, environment={"SLUICE_MESSAGES_PER_TASK": "1"})
    case.held_at(gate)
    for _ in range(2):  # they stay visible, because the paused task receives nothing; it counts them twice a minute
        case.send(other.upload.to_json())
    assert eventually(lambda: worker.has_logged("requested more tasks"))
    gate.touch()
    assert worker.ended().exit_code == 0
    asked = [drain for drain in bench.chain.drains() if json.loads(drain["input"])["source"] == "backlog"]
    assert [json.loads(drain["input"])["tasks"] for drain in asked] == [2]
    bench.chain.wait_for(lambda: not bench.chain.drains("RUNNING"), "its tasks to leave")


# --- a worker that runs out of a resource -----------------------------------------------------------------------


@fault(
    _AREA,
    "disk full",
    expected="the file is not rejected: the message is returned, and a task with enough disk space publishes the file",
)
def test_a_full_disk_does_not_reject_the_file(bench: Bench) -> None:
    case = bench.case(body=good_orders(5_000))
    outcome = case.work(
        disk_bytes=8 * 1024, environment=_ONE_TRY
    )  # the file is larger, so it is not copied to the disk
    assert outcome.exit_code == 75
    assert "StageBroke: stage refine" in outcome.errors
    assert case.stranded()
    case.wait_until_visible()
    assert case.work().exit_code == 0
    case.kept_promises(rows=5_000)


@fault(
    _AREA,
    "maxReceiveCount reached",
    expected="the message stays in the dead-letter queue; the log names the error; no receipt",
)
@fault(_AREA, "redrive from the dead-letter queue", expected="processed normally")
def test_a_message_that_was_delivered_too_often_stays_in_the_dead_letter_queue_until_it_is_redriven(
    bench: Bench,
) -> None:
    case = bench.case(max_receives=1)
    refused = Sabotage(on="s3.GetObject", where="/incoming/", do="refuse", times=0, code="InvalidRequest", status=400)
    outcome = case.work(refused)
    assert outcome.exit_code == 0, "nothing is left that another task could do"
    assert "InvalidRequest" in outcome.errors
    attempt = bench.chain.attempt(case.upload)
    assert attempt is not None
    assert attempt.given_up
    assert case.count(case.dead_letter_url) == {"waiting": 1, "held": 0}
    assert not bench.chain.has_receipt(case.upload)
    assert _redriven_by_sqs(case) == ("COMPLETED", 1)
    assert case.work().exit_code == 0
    case.kept_promises()


def _redriven_by_sqs(case: Case, **destination: str) -> tuple[str, int]:
    """Redrive the case's dead-letter queue as the AWS console does. Return the status and the number of messages that
    were moved."""
    sqs, dead = case.bench.chain.sqs, arn_of(case.bench.chain, case.dead_letter_url)
    sqs.start_message_move_task(SourceArn=dead, **destination)
    (moved,) = sqs.list_message_move_tasks(SourceArn=dead)["Results"]
    return moved["Status"], moved["ApproximateNumberOfMessagesMoved"]


@fault(
    _AREA,
    "SQS's redrive of a message that a task moved to the dead-letter queue",
    expected="SQS does not know the source queue, so the redrive fails; with a destination queue, it succeeds",
)
def test_sqs_redrives_a_message_that_a_task_moved_only_to_a_named_queue(bench: Bench) -> None:
    case = bench.case(deliver=False)
    bench.chain.sqs.send_message(QueueUrl=case.dead_letter_url, MessageBody=case.upload.to_json())
    assert _redriven_by_sqs(case) == ("FAILED", 0)
    assert case.count(case.dead_letter_url) == {"waiting": 1, "held": 0}
    assert _redriven_by_sqs(case, DestinationArn=case.queue_arn) == ("COMPLETED", 1)  # as in docs/operations.md
    assert case.work().exit_code == 0
    case.kept_promises()
