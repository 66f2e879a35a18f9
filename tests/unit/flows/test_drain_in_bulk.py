"""When many uploads wait, a task processes several at a time, with the same guarantees as for a single one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.pipeline import bulk, closing_line, run
from flows.pipeline.attempts import read_attempt
from flows.pipeline.backlog import Backlog
from flows.pipeline.commit import index_entry
from flows.pipeline.job import UploadJob
from flows.pipeline.receipt import Receipt
from flows.pipeline.stages import fetch as real_fetch
from flows.pipeline.stages import refine as real_refine
from flows.pipeline.stopping import Stopped
from flows.refinery.contract.loading import Contracts
from lambda_trigger.message import UploadMessage
from tests.chain.files import good_orders
from tests.unit.flows.conftest import Account, DrainClock
from tests.unit.flows.world import World, drain, plainly, with_settings


@pytest.fixture
def world(account: Account) -> World:
    return World(account, shows_live=False)


def send(account: Account, count: int) -> list[UploadMessage]:
    uploads = [account.upload(f"incoming/orders/{number}.csv", good_orders(2)) for number in range(count)]
    for upload in uploads:
        account.send(upload.to_json())
    return uploads


def test_every_upload_has_its_outcome_announced_and_recorded_once(account: Account, world: World) -> None:
    uploads = send(account, 25)
    assert drain(world)
    assert all(account.receipt(upload) for upload in uploads)
    ids = sorted(upload.run_id for upload in uploads)
    assert sorted(notice.run_id for notice in world.announced) == ids
    assert sorted(receipt.run_id for receipt in world.recorded) == ids
    assert not any(receipt.observed for receipt in world.recorded)
    assert account.messages() == len(account.keys("batches/")) == 0


@pytest.mark.parametrize("where", ["fetch", "refine"])
def test_an_interrupt_in_any_thread_ends_the_task(
    account: Account, world: World, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    interrupted.__name__ = where
    monkeypatch.setattr(run, where, interrupted)
    send(account, 5)
    with pytest.raises(KeyboardInterrupt):
        drain(world)


@pytest.mark.parametrize(("is_there", "live"), [(True, 3), (False, 0)])
def test_uploads_of_a_dataset_with_a_limit_are_processed_live_while_prefect_is_available(
    account: Account, world: World, is_there: bool, live: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = world.account = with_settings(account, live_backlog=2)
    world.shows_live = is_there
    limited = account.parts.contracts.named("penguins").model_copy(update={"max_concurrent_uploads": 1})
    for_key = Contracts.for_key
    monkeypatch.setattr(Contracts, "for_key", lambda self, key: limited if "penguins" in key else for_key(self, key))
    uploads = send(account, 6)
    for number in range(3):
        uploads.append(account.upload(f"incoming/penguins/{number}.csv", b"species\n"))
        account.send(uploads[-1].to_json())
    seen: list[tuple[str, str]] = []

    def process(account: Account, job: UploadJob) -> Receipt:
        seen.append((job.upload.key.split("/")[1], threading.current_thread().name))
        return plainly(account, job)

    assert drain(world, process)
    assert seen == [("penguins", "MainThread")] * live
    assert all(account.receipt(upload) for upload in uploads)


def test_of_a_key_that_was_overwritten_many_times_the_newest_version_is_current(account: Account, world: World) -> None:
    uploads = [account.upload("incoming/orders/busy.csv", good_orders(2, start=1 + number)) for number in range(20)]
    for upload in uploads:
        account.send(upload.to_json())
    assert drain(world)
    receipts = [account.receipt(upload) for upload in uploads]
    assert all(receipts)
    newest = receipts[-1]
    assert newest is not None
    assert account.keys("data/") == [output.key for output in newest.outputs]
    entry = index_entry(account.parts.store, newest)
    assert entry is not None
    assert (entry.current and entry.current.run_id, entry.retired) == (newest.run_id, ())


def test_a_batch_is_announced_in_a_few_calls(account: Account, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine, processing one upload takes longer than the production value.
    monkeypatch.setattr(closing_line, "_GATHER_ANNOUNCED_SECONDS", 60)
    send(account, 20)
    assert drain(world)
    assert len(world.seen) <= 10


def test_only_the_main_thread_refines(account: Account, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, set[str]] = {"fetch": set(), "refine": set()}
    for name in threads:
        stage = getattr(run, name)

        def noted(*values: Any, stage: Any = stage, name: str = name) -> Any:
            threads[name].add(threading.current_thread().name)
            return stage(*values)

        noted.__name__ = name
        monkeypatch.setattr(run, name, noted)
    send(account, 12)
    assert drain(world)
    assert threads["refine"] == {"MainThread"}
    assert "MainThread" not in threads["fetch"]


def test_a_failed_upload_is_returned_and_the_others_are_done(
    account: Account, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = send(account, 11)
    bad = account.upload("incoming/orders/bad.csv", good_orders(7))
    account.send(bad.to_json())

    def refine(fetched: Any, *more: Any) -> Any:
        if fetched.facts.size_bytes == bad.size_bytes:
            raise ValueError("4711 of the data")
        return real_refine(fetched, *more)

    monkeypatch.setattr(run, "refine", refine)
    assert not drain(world)
    assert all(account.receipt(upload) for upload in uploads)
    attempt = read_attempt(account.parts.store, bad.run_id)
    assert attempt is not None
    assert attempt.error == "StageBroke"
    assert account.messages() == 1


def test_sigterm_returns_all_messages_immediately_and_writes_nothing_more(
    account: Account, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, 15)
    begun = threading.Event()

    def refine(*_: Any) -> Any:
        begun.set()
        for _moment in range(300):
            time.sleep(0.1)

    def kill() -> None:
        begun.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(run, "refine", refine)
    before = signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=kill, daemon=True).start()
    try:
        with pytest.raises(Stopped):
            drain(world)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert account.parts.queue.count_waiting() == 15
    time.sleep(0.5)
    assert account.keys() == []


@pytest.mark.parametrize(("large_bytes", "most_done"), [(bulk._LARGE_BYTES, 14), (10, 1)])
def test_a_task_whose_time_is_over_returns_the_messages_that_no_worker_has_begun(
    account: Account,
    world: World,
    clock: DrainClock,
    monkeypatch: pytest.MonkeyPatch,
    large_bytes: int,
    most_done: int,
) -> None:
    monkeypatch.setattr(bulk, "_LARGE_BYTES", large_bytes)
    send(account, 15)

    def refine(*values: Any) -> Any:
        clock.seconds_ahead = account.parts.settings.max_task_seconds
        return real_refine(*values)

    monkeypatch.setattr(run, "refine", refine)
    assert not drain(world)
    done = len(account.keys("receipts/"))
    assert 0 < done <= most_done
    assert account.parts.queue.count_waiting() == 15 - done
    assert account.keys("batches/") == account.keys("attempts/") == []


def test_large_files_are_fetched_one_after_the_other(
    account: Account, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has space for only one file of the largest accepted size, together with small ones."""
    monkeypatch.setattr(bulk, "_LARGE_BYTES", 10)
    at_once: list[int] = []
    inside: list[Path] = []

    def fetch(*values: Any) -> Any:
        inside.append(values[-1])
        at_once.append(len([folder for folder in inside if folder.exists()]))
        return real_fetch(*values)

    monkeypatch.setattr(run, "fetch", fetch)
    send(account, 6)
    assert drain(world)
    assert set(at_once) == {1}


# --- the backlog ------------------------------------------------------------------------------------------------


class Clock:
    """A clock whose time a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def counts(account: Account, monkeypatch: pytest.MonkeyPatch, *waiting: int) -> list[int]:
    left = list(waiting)
    monkeypatch.setattr(account.parts.queue, "count_waiting", lambda: left.pop(0))
    return left


def never() -> bool:
    """Return False, as the check for a pause does if the stack is not paused."""
    return False


@pytest.mark.parametrize(("waiting", "asked"), [(100, []), (101, [2]), (1_000, [4])])
def test_a_task_asks_for_as_many_tasks_as_the_backlog_needs(
    account: Account, monkeypatch: pytest.MonkeyPatch, waiting: int, asked: Sequence[int]
) -> None:
    counts(account, monkeypatch, waiting)
    calls: list[int] = []
    Backlog(account.parts, calls.append, never, Clock(3_000)).look()
    assert calls == asked


def test_a_task_asks_once_in_each_half_minute_and_not_near_its_end(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = counts(account, monkeypatch, 500, 500, 500)
    calls: list[int] = []
    clock = Clock(3_025)
    backlog = Backlog(account.parts, calls.append, never, clock)
    for now in (3_025, 3_029, 3_030, 3_040, 3_055, 3_059, 3_061):
        clock.now = now
        backlog.look()
    assert calls == [4, 4], "the first count came too late in its half minute to ask"
    assert left == []


def test_a_deep_backlog_stays_deep_while_messages_wait(
    account: Account, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts(account, monkeypatch, 51, 3)
    clock = Clock(3_000)
    backlog = Backlog(account.parts, lambda _: None, never, clock)
    backlog.look()
    clock.now = 3_030
    backlog.look()
    assert backlog.is_deep


def test_with_many_uploads_waiting_nothing_is_processed_live(account: Account, world: World) -> None:
    account = world.account = with_settings(account, live_backlog=5)
    world.shows_live = True
    send(account, 8)
    lives: list[object] = []
    assert drain(world, lambda account, job: lives.append(job) or account.process(job.upload))  # type: ignore[func-returns-value]
    assert lives == []
    assert len(world.recorded) == 8
