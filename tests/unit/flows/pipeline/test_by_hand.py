"""A manual run announces its outcome or records why it failed, and a dry run writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from flows.pipeline.announce import OutcomeNotice
from flows.pipeline.attempts import Attempt, read_attempt, write_attempt
from flows.pipeline.by_hand import reported
from flows.pipeline.errors import OutOfMemory, RepairRejected
from flows.pipeline.job import UploadJob
from flows.pipeline.receipt import Receipt
from flows.pipeline.run import run_upload
from flows.refinery.errors import SluiceError, TransientError
from lambda_trigger.message import UploadMessage
from tests.chain.files import good_orders
from tests.unit.flows.conftest import Account
from tests.unit.flows.world import KEY, World, drain, with_settings


@pytest.fixture
def world(account: Account) -> World:
    return World(account)


def by_hand(account: Account, world: World, dry_run: bool = False) -> Receipt:
    job = UploadJob(account.upload(KEY, good_orders(2)), by_hand=True, dry_run=dry_run)
    return reported(account.parts, job, lambda: run_upload(account.parts, job), world.announce)


def failing(account: Account, world: World, error: SluiceError, upload: UploadMessage | None = None) -> str:
    job = UploadJob(upload or account.upload(KEY, good_orders(2)), by_hand=True)

    def run() -> Receipt:
        raise error

    with pytest.raises(type(error)):
        reported(account.parts, job, run, world.announce)
    return job.upload.run_id


def test_the_outcome_of_a_manual_run_is_announced(account: Account, world: World) -> None:
    receipt = by_hand(account, world)
    assert [notice.run_id for notice in world.announced] == [receipt.run_id]
    assert account.keys("batches/") == []


def test_a_dry_run_leaves_nothing(account: Account, world: World) -> None:
    by_hand(account, world, dry_run=True)
    assert world.announced == []
    assert account.keys() == []


def test_the_reason_of_a_failed_manual_run_is_recorded(account: Account, world: World) -> None:
    attempt = read_attempt(account.parts.store, failing(account, world, TransientError("S3 is busy")))
    assert attempt is not None
    assert (attempt.code, attempt.dataset, attempt.given_up) == ("transient_error", "orders", False)


def test_a_failed_manual_run_does_not_seem_to_be_retried_if_no_message_leads_to_another_try(
    account: Account, world: World
) -> None:
    store, upload = account.parts.store, account.upload(KEY, good_orders(2))
    given_up = Attempt.of(
        upload,
        OutOfMemory("too small"),
        dataset="orders",
        receive_count=5,
        task_arn=None,
        given_up=True,
        message_id="m",
    )
    write_attempt(store, given_up)
    for attempt in (upload, replace(account.upload("incoming/orders/again.csv", good_orders(2)), attempt=1)):
        failed = read_attempt(store, failing(account, world, TransientError("S3 is busy"), attempt))
        assert failed is not None
        assert (failed.code, failed.given_up) == ("transient_error", True)
        assert failed.message_id == ("m" if attempt is upload else None)


def test_a_rejected_repair_is_not_recorded_as_a_failed_upload(account: Account, world: World) -> None:
    assert read_attempt(account.parts.store, failing(account, world, RepairRejected("as bad as before"))) is None


def test_an_outcome_that_eventbridge_rejects_is_announced_later_by_a_task(account: Account, world: World) -> None:
    def refuse(_: Sequence[OutcomeNotice]) -> frozenset[str]:
        return frozenset()

    job = UploadJob(account.upload(KEY, good_orders(2)), by_hand=True)
    reported(account.parts, job, lambda: run_upload(account.parts, job), refuse)
    older = world.account = with_settings(account, visibility_timeout_seconds=-60)
    older.parts.queue.visibility_timeout_seconds = 30
    assert drain(world)
    assert [notice.run_id for notice in world.announced] == [job.upload.run_id]
    assert not world.recorded
    assert not account.keys("batches/")
