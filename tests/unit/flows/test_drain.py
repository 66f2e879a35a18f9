"""A task processes every message in the queue, and announces each outcome before it deletes the message."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import boto3
import pytest

from blocks.aws_errors import AwsRefused
from blocks.upload_queue import Problems, ReceivedMessage
from flows.pipeline.announce import OutcomeStatus
from flows.pipeline.attempts import read_attempt
from flows.pipeline.catching_up import CatchingUp
from flows.pipeline.commit import find_orphaned, index_entry
from flows.pipeline.errors import UploadCancelled
from flows.pipeline.job import UploadJob
from flows.pipeline.leaving import Poll, may_leave
from flows.pipeline.protocol import IndexUnreadable, ReceiptConflict
from flows.pipeline.receipt import Receipt, Status
from flows.pipeline.run import run_upload
from flows.pipeline.stopping import Stopped
from flows.refinery.errors import TransientError
from tests.chain.files import good_orders
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account, DrainClock
from tests.unit.flows.world import KEY, TASK, Failing, World, drain, with_settings


@pytest.fixture
def world(account: Account) -> World:
    return World(account)


# --- outcomes ---------------------------------------------------------------------------------------------------


def test_an_upload_is_announced_recorded_and_its_message_deleted(account: Account, world: World) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    assert drain(world)
    receipt = account.receipt(upload)
    assert receipt is not None
    assert (receipt.chain.execution_arn, receipt.chain.task_arn) == (TASK.execution_arn, TASK.task_arn)
    assert [(notice.status, notice.run_id) for notice in world.announced] == [(OutcomeStatus.PUBLISHED, upload.run_id)]
    assert [receipt.run_id for receipt in world.recorded] == [upload.run_id]
    assert world.seen == [(1, 1)], "announced before the message is deleted, while the note is there"
    assert account.messages() == len(account.keys("batches/")) == len(account.keys("attempts/")) == 0


def test_an_upload_that_prefect_showed_live_is_not_recorded_again(account: Account, world: World) -> None:
    def live(account: Account, job: UploadJob) -> Receipt:
        return run_upload(account.parts, replace(job, chain=job.chain.model_copy(update={"flow_run_id": "run"})))

    account.send(account.upload(KEY, good_orders(2)).to_json())
    assert drain(world, live)
    assert len(world.announced) == 1
    assert world.recorded == []


def test_a_rejected_file_is_announced(account: Account, world: World) -> None:
    upload = account.upload(KEY, b"")
    account.send(upload.to_json())
    assert drain(world)
    receipt = account.receipt(upload)
    assert receipt is not None
    assert receipt.status is Status.REJECTED
    assert [notice.status for notice in world.announced] == [OutcomeStatus.REJECTED]


def test_with_an_empty_queue_a_task_succeeds(world: World) -> None:
    assert drain(world)


def test_all_messages_of_a_batch_are_processed(account: Account, world: World) -> None:
    uploads = [account.upload(f"incoming/orders/{name}.csv", good_orders(1)) for name in "abc"]
    for upload in uploads:
        account.send(upload.to_json())
    assert drain(world)
    assert all(account.receipt(upload) for upload in uploads)
    assert account.messages() == 0


def test_a_message_delivered_twice_publishes_and_announces_once(account: Account, world: World) -> None:
    upload = account.upload(KEY, good_orders(2))
    for _ in range(3):
        account.send(upload.to_json())
    assert drain(world)
    assert account.messages() == 0
    assert len(account.keys("data/")) == len(world.announced) == len(world.recorded) == 1


def test_a_redelivered_upload_that_has_a_receipt_is_announced_and_recorded(account: Account, world: World) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    account.parts.queue.release(account.parts.queue.receive(wait_seconds=0))
    account.process(upload)
    assert drain(world)
    assert len(world.announced) == len(world.recorded) == 1


def test_a_forced_attempt_is_processed_although_the_upload_has_a_receipt(account: Account, world: World) -> None:
    upload = account.upload(KEY, good_orders(2))
    for message in (upload, replace(upload, attempt=1)):
        account.send(message.to_json())
        assert drain(world)
    receipt = account.receipt(upload)
    assert receipt is not None
    assert receipt.attempt == 1
    assert len(world.announced) == 2


def test_after_a_receipt_conflict_the_message_is_deleted(account: Account, world: World) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    account.process(upload)
    assert drain(world, Failing(ReceiptConflict("another result")))
    assert account.messages() == 0


def test_an_invalid_index_entry_is_an_error_that_quotes_nothing(account: Account, world: World) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    drain(world)
    receipt = account.receipt(upload)
    assert receipt
    (entry,) = account.keys("index/")
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key=entry, Body=b'{"schema": "4711"}')
    with pytest.raises(IndexUnreadable) as error:
        index_entry(account.parts.store, receipt)
    assert "4711" not in str(error.value)


# --- retries ----------------------------------------------------------------------------------------------------


def test_a_temporary_failure_is_recorded_and_its_message_is_kept(account: Account, world: World) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    assert not drain(world, Failing(TransientError("S3 is busy")))
    assert account.messages() == 1
    assert account.receipt(upload) is None
    attempt = read_attempt(account.parts.store, upload.run_id)
    assert attempt is not None
    assert (attempt.error, attempt.transient, attempt.given_up) == ("TransientError", True, False)
    assert (attempt.dataset, attempt.task_arn) == ("orders", TASK.task_arn)
    assert not world.announced
    assert not account.keys("batches/")


def test_an_outcome_deletes_the_record_of_a_failed_attempt(account: Account, world: World) -> None:
    account = world.account = with_settings(account, retry_delay_seconds=0)
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    assert drain(world, Failing(TransientError("S3 is busy"))), "the same task received it again"
    assert account.receipt(upload)
    assert account.keys("attempts/") == []


def test_an_unexpected_error_of_one_upload_does_not_stop_the_others(account: Account, world: World) -> None:
    uploads = [account.upload(f"incoming/orders/{name}.csv", good_orders(1)) for name in "ab"]
    for upload in uploads:
        account.send(upload.to_json())
    assert not drain(world, Failing(ValueError("4711 of the data")))
    assert sum(account.receipt(upload) is not None for upload in uploads) == account.messages() == 1
    (key,) = account.keys("attempts/")
    attempt = read_attempt(account.parts.store, key.removeprefix("attempts/").removesuffix(".json"))
    assert attempt is not None
    assert "ValueError at world.py" in attempt.message
    assert "4711" not in attempt.message


def test_at_the_last_delivery_an_upload_is_given_up_and_announced_as_failed(account: Account, world: World) -> None:
    account = world.account = with_settings(account, retry_delay_seconds=0)
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    assert drain(world, Failing(*[TransientError("S3 is busy")] * 5)), "nothing is left to be tried"
    assert (account.messages(), account.dead_letters()) == (0, 1)
    attempt = read_attempt(account.parts.store, upload.run_id)
    assert attempt is not None
    assert (attempt.receive_count, attempt.given_up) == (5, True)
    assert [(notice.status, notice.error and notice.error.code) for notice in world.announced] == [
        (OutcomeStatus.FAILED, attempt.code)
    ]
    assert [failure.run_id for failure in world.failures] == [upload.run_id]
    assert account.keys("batches/") == []


def test_a_cancelled_upload_is_given_up_immediately(account: Account, world: World) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    assert drain(world, Failing(UploadCancelled("cancelled in Prefect")))
    assert (account.messages(), account.dead_letters()) == (0, 1)
    attempt = read_attempt(account.parts.store, upload.run_id)
    assert attempt is not None
    assert (attempt.code, attempt.given_up) == ("upload_cancelled", True)
    assert [notice.status for notice in world.announced] == [OutcomeStatus.FAILED]


@pytest.mark.parametrize("refusals", [1, 9])
def test_a_cancelled_upload_stays_cancelled_even_if_sqs_rejects_its_message(
    account: Account, world: World, refusals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = world.account = with_settings(account, retry_delay_seconds=0)
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    give_up, refused = account.parts.queue.give_up, [AwsRefused("SQS refuses")] * refusals

    def refusing(messages: Iterable[ReceivedMessage]) -> Problems:
        return dict.fromkeys(messages, refused.pop()) if refused else give_up(messages)

    monkeypatch.setattr(account.parts.queue, "give_up", refusing)
    cancelled = Failing(UploadCancelled("cancelled in Prefect"))
    assert drain(world, cancelled), "the last delivery is moved by SQS itself"
    assert (account.messages(), account.dead_letters()) == (0, 1)
    assert account.keys("receipts/") == account.keys("data/") == account.keys("batches/") == []
    attempt = read_attempt(account.parts.store, upload.run_id)
    assert attempt is not None
    assert (attempt.code, attempt.given_up) == ("upload_cancelled", True)


def test_a_cancelled_upload_whose_message_is_redriven_is_processed(account: Account, world: World) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    assert drain(world, Failing(UploadCancelled("cancelled in Prefect")))
    account.send(upload.to_json())
    account.parts.queue.release(account.parts.queue.receive(wait_seconds=0))
    assert drain(world), "another message, also if its first task died"
    assert account.receipt(upload)


@pytest.mark.parametrize("came_again", [True, False])
def test_the_output_of_a_killed_task_is_deleted_on_redelivery_and_otherwise_found_as_orphaned(
    account: Account, world: World, *, came_again: bool
) -> None:
    upload = account.upload(KEY, good_orders(2))
    left = f"data/orders/{upload.run_id}-0-{'0' * 16}.parquet"
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key=left, Body=b"rows")
    account.send(upload.to_json())
    if came_again:
        account.parts.queue.release(account.parts.queue.receive(wait_seconds=0))
    assert drain(world)
    assert list(find_orphaned(account.parts, lambda _: True)) == ([] if came_again else [left])


# --- outcomes that cannot be reported -------------------------------------------------------------------------------


def test_an_outcome_that_cannot_be_reported_stays_in_the_note_and_its_message_is_deleted(
    account: Account, world: World
) -> None:
    account = world.account = with_settings(account, visibility_timeout_seconds=1)
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    world.is_away = True
    assert drain(world)
    assert account.messages() == 0
    assert len(account.keys("batches/")) == 1


def test_a_task_waits_until_an_outcome_can_be_reported(
    account: Account, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = world.account = with_settings(account, visibility_timeout_seconds=30)
    account.send(account.upload(KEY, good_orders(2)).to_json())
    world.is_away = True
    finish = CatchingUp.finish

    def come_back(*called: Any) -> None:
        finish(*called)
        world.is_away = False

    monkeypatch.setattr(CatchingUp, "finish", come_back)
    assert drain(world)
    assert len(world.announced) == len(world.recorded) == 1
    assert account.keys("batches/") == []


# --- messages that are not uploads ------------------------------------------------------------------------------


def test_an_unreadable_message_is_moved_to_the_dead_letter_queue(account: Account, world: World) -> None:
    account.send("not json")
    assert drain(world)
    assert (account.messages(), account.dead_letters()) == (0, 1)
    assert account.keys("batches/") == []


@pytest.mark.parametrize(
    ("bucket", "key"),
    [(PUBLISHED, "incoming/orders/x.csv"), ("another", "incoming/x.csv"), (LANDING, "receipts/x.json")],
)
def test_a_message_about_an_object_that_is_not_an_upload_is_moved_to_the_dead_letter_queue(
    account: Account, world: World, bucket: str, key: str
) -> None:
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key="incoming/orders/x.csv", Body=good_orders(2))
    upload = replace(account.upload("receipts/x.json", good_orders(2)), bucket=bucket, key=key, version_id=None)
    account.send(upload.to_json())
    assert drain(world)
    assert (account.messages(), account.dead_letters()) == (0, 1)
    assert account.keys("receipts/") == account.keys("data/") == []


# --- when a task ends -------------------------------------------------------------------------------------------


def test_being_stopped_returns_all_messages_immediately_and_removes_the_note(account: Account, world: World) -> None:
    for name in "abc":
        account.send(account.upload(f"incoming/orders/{name}.csv", good_orders(2)).to_json())
    with pytest.raises(Stopped):
        drain(world, Failing(Stopped()))
    again = account.parts.queue.receive(wait_seconds=0)
    assert [message.receive_count for message in again] == [2, 2, 2]
    assert account.keys("batches/") == account.keys("attempts/") == account.keys("data/") == []


def test_a_task_whose_time_is_over_returns_the_messages_that_it_has_not_begun(
    account: Account, world: World, clock: DrainClock
) -> None:
    for name in "ab":
        account.send(account.upload(f"incoming/orders/{name}.csv", good_orders(2)).to_json())

    def slow(account: Account, job: UploadJob) -> Receipt:
        clock.seconds_ahead = account.parts.settings.max_task_seconds
        return run_upload(account.parts, job)

    assert not drain(world, slow)
    assert len(account.keys("receipts/")) == account.messages() == 1
    assert account.keys("batches/") == account.keys("attempts/") == []


def test_a_task_leaves_only_after_an_empty_poll_that_began_when_nobody_relied_on_it() -> None:
    assert may_leave(Poll(began=100.0, messages=0), stay_until=100)
    assert not may_leave(Poll(began=99.9, messages=0), stay_until=100)
    assert not may_leave(Poll(began=101.0, messages=1), stay_until=100)


def test_a_task_stays_as_long_as_its_drain_relies_on_it(world: World) -> None:
    began = time.time()
    assert drain(world, stay_until=began + 1)
    assert time.time() >= began + 1
