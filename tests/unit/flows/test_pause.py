"""While a stack is paused, a task finishes the uploads that it has received, and receives no more."""

from __future__ import annotations

import time

import pytest

from blocks.pause import Pause
from flows.composition import assemble
from flows.pipeline import backlog
from flows.pipeline.backlog import Backlog
from flows.pipeline.job import UploadJob
from flows.pipeline.receipt import Receipt
from flows.pipeline.run import run_upload
from tests.chain.files import good_orders
from tests.unit.flows.conftest import PUBLISHED, Account
from tests.unit.flows.world import World, drain


@pytest.fixture
def world(account: Account) -> World:
    return World(account)


@pytest.fixture
def pause(account: Account) -> Pause:
    return Pause(PUBLISHED)


def send(account: Account, count: int) -> None:
    for number in range(count):
        account.send(account.upload(f"incoming/orders/{number}.csv", good_orders(2)).to_json())


def test_a_task_that_starts_in_a_pause_receives_no_message(account: Account, world: World, pause: Pause) -> None:
    send(account, 2)
    pause.begin()
    assert drain(world, stay_until=time.time() + 600), "it does not stay, because no drain relies on tasks in a pause"
    assert (account.messages(), len(account.keys("receipts/"))) == (2, 0)


def test_a_task_finishes_what_it_holds_when_a_pause_begins(
    account: Account, world: World, pause: Pause, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(backlog, "PERIOD_SECONDS", 0.05)
    send(account, 12)

    def process(account: Account, job: UploadJob) -> Receipt:
        if not pause.is_on():
            pause.begin()
            time.sleep(0.5)  # so that the thread that checks for a pause does so again
        return run_upload(account.parts, job)

    assert drain(world, process)
    assert (len(account.keys("receipts/")), account.messages(), account.keys("batches/")) == (10, 2, [])


def test_a_task_does_not_leave_for_a_pause_that_is_over(account: Account, world: World, pause: Pause) -> None:
    """The task stays, because the drain that `sluice resume` started may already rely on it."""
    looks = Backlog(account.parts, world.asked.append, pause.is_on)
    pause.begin()
    looks.look()
    assert looks.is_paused
    pause.end()
    assert not looks.is_paused_now()
    assert not looks.is_paused


def test_in_a_pause_no_task_asks_for_more(account: Account, world: World, pause: Pause) -> None:
    pause.begin()
    send(account, 3)
    settings = account.parts.settings.model_copy(update={"messages_per_task": 1})
    looks = Backlog(Account(assemble(settings)).parts, world.asked.append, pause.is_on, clock=lambda: 3_000.0)
    looks.look()
    assert world.asked == []
    assert looks.is_paused
