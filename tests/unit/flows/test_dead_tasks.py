"""Another task explains, announces and records the uploads that a task left unfinished when it died."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from flows.pipeline.announce import OutcomeStatus
from flows.pipeline.attempts import Attempt, read_attempt, write_attempt
from flows.pipeline.batch_notes import BatchNote, NotedUpload, write_note
from flows.pipeline.dead_tasks import TaskEnd
from flows.pipeline.errors import TaskDied, TaskTooSmall
from flows.pipeline.job import UploadJob
from flows.pipeline.receipt import Receipt
from flows.pipeline.stopping import Stopped
from flows.refinery.errors import TransientError
from lambda_trigger.message import UploadMessage
from tests.chain.files import good_orders
from tests.unit.flows.conftest import Account
from tests.unit.flows.world import KEY, Failing, World, drain, plainly, with_settings

DEAD = "arn:aws:ecs:r:1:task/sluice/dead"
KILLED = TaskEnd(True, cause="out of memory", lacked_memory=True, memory_mib=2_048)
STOPPED = TaskEnd(True, cause="the task was stopped")


@pytest.fixture
def world(account: Account) -> World:
    return World(account, ends={DEAD: STOPPED})


def die_with(
    account: Account, uploads: Iterable[UploadMessage], *, refining: str | None = None, task: str = DEAD
) -> None:
    """Send the uploads' messages, and leave the state that a task leaves when it is killed after receiving them.

    If `refining` is given, the task was refining the upload with this run ID when it was killed.
    """
    for upload in uploads:
        account.send(upload.to_json())
    take_and_die(account, refining=refining, task=task)


def take_and_die(account: Account, *, refining: str | None = None, task: str = DEAD) -> None:
    messages = account.parts.queue.receive(wait_seconds=0)
    noted = [
        NotedUpload(
            upload=UploadMessage.from_json(message.body),
            message_id=message.message_id,
            receive_count=message.receive_count,
        )
        for message in messages
    ]
    leave_note(account, noted, refining=refining, task=task)
    account.parts.queue.release(messages)


def leave_note(
    account: Account, noted: Iterable[NotedUpload], *, refining: str | None = None, task: str = DEAD
) -> None:
    write_note(
        account.parts.store,
        BatchNote(
            task=task.rpartition("/")[2], number=1, task_arn=task, refining=refining, uploads=tuple(noted), at="2026"
        ),
    )


def uploads(account: Account, count: int) -> list[UploadMessage]:
    return [account.upload(f"incoming/orders/{number}.csv", good_orders(2)) for number in range(count)]


def spying(account: Account, seen: dict[str, str]) -> object:
    """Return a function that processes an upload, after it has added the message of its last attempt to `seen`."""

    def process(account: Account, job: UploadJob) -> Receipt:
        attempt = read_attempt(account.parts.store, job.upload.run_id)
        seen[job.upload.run_id] = attempt.message if attempt else ""
        return plainly(account, job)

    return process


def test_a_later_failure_replaces_the_reason_of_a_dead_task(account: Account, world: World) -> None:
    batch = uploads(account, 2)
    die_with(account, batch, refining=batch[0].run_id)
    assert not drain(world, Failing(*[TransientError("not yet")] * 2))
    attempts = [read_attempt(account.parts.store, upload.run_id) for upload in batch]
    assert [attempt and attempt.code for attempt in attempts] == ["transient_error"] * 2, "the later reason counts"
    assert account.keys("batches/") == []


def test_the_reason_of_a_dead_task_is_recorded_until_the_retry_succeeds(account: Account, world: World) -> None:
    batch = uploads(account, 2)
    die_with(account, batch, refining=batch[0].run_id)
    seen: dict[str, str] = {}
    assert drain(world, spying(account, seen))  # type: ignore[arg-type]
    assert "dead ended while it was refining this upload: the task was stopped" in seen[batch[0].run_id]
    assert "dead ended while it held this upload: the task was stopped" in seen[batch[1].run_id]
    assert account.keys("attempts/") == account.keys("batches/") == [], "the receipts supersede them"


def test_a_task_that_still_runs_is_not_considered_dead(account: Account, world: World) -> None:
    world.ends[DEAD] = TaskEnd(is_over=False)
    batch = uploads(account, 1)
    die_with(account, batch)
    seen: dict[str, str] = {}
    assert drain(world, spying(account, seen))  # type: ignore[arg-type]
    assert seen == {batch[0].run_id: ""}
    assert len(account.keys("batches/")) == 1


def test_an_upload_that_two_tasks_were_too_small_for_is_given_up_and_the_others_are_not(
    account: Account, world: World
) -> None:
    batch = uploads(account, 3)
    world.ends |= {DEAD: KILLED, f"{DEAD}-2": KILLED}
    die_with(account, batch, refining=batch[1].run_id)
    with pytest.raises(Stopped):  # a task that is stopped before it processes an upload
        drain(world, Failing(Stopped()))
    assert read_attempt(account.parts.store, batch[1].run_id).memory_kills == 1  # type: ignore[union-attr]
    take_and_die(account, refining=batch[1].run_id, task=f"{DEAD}-2")
    assert drain(world)
    assert [account.receipt(upload) is not None for upload in batch] == [True, False, True]
    attempt = read_attempt(account.parts.store, batch[1].run_id)
    assert attempt is not None
    assert (attempt.code, attempt.given_up, attempt.memory_kills) == (TaskTooSmall.code, True, 2)
    assert "4,096 MiB" in attempt.message
    assert (account.messages(), account.dead_letters()) == (0, 1)
    assert [notice.status for notice in world.announced].count(OutcomeStatus.FAILED) == 1
    assert account.keys("batches/") == []


def test_the_same_death_is_counted_once(account: Account, world: World) -> None:
    account = world.account = with_settings(account, retry_delay_seconds=0)
    world.ends[DEAD] = KILLED
    (upload,) = uploads(account, 1)
    die_with(account, [upload], refining=upload.run_id)
    assert drain(world, Failing(TransientError("busy"), TransientError("busy")))
    assert account.receipt(upload)
    assert account.dead_letters() == 0


def test_memory_kills_before_an_upload_was_given_up_no_longer_count(account: Account, world: World) -> None:
    (upload,) = uploads(account, 1)
    error = TaskTooSmall("two tasks were too small")
    before = Attempt.of(upload, error, dataset="orders", receive_count=3, task_arn=DEAD, given_up=True, memory_kills=2)
    write_attempt(account.parts.store, before)
    world.ends[f"{DEAD}-3"] = KILLED
    die_with(account, [upload], refining=upload.run_id, task=f"{DEAD}-3")
    assert drain(world), "one more death is the first one since"
    assert account.receipt(upload)


# --- old notes --------------------------------------------------------------------------------------------------


def noted(upload: UploadMessage) -> NotedUpload:
    return NotedUpload(upload=upload, message_id="gone", receive_count=1)


def test_another_task_announces_and_records_the_uploads_of_a_dead_task_before_it_leaves(
    account: Account, world: World
) -> None:
    account = world.account = aged(account)
    done, undecided = uploads(account, 2)
    account.process(done)
    leave_note(account, [noted(done), noted(undecided)])
    assert drain(world)
    assert [notice.run_id for notice in world.announced] == [done.run_id]
    assert [receipt.run_id for receipt in world.recorded] == [done.run_id]
    attempt = read_attempt(account.parts.store, undecided.run_id)
    assert attempt is not None
    assert (attempt.code, attempt.task_arn) == (TaskDied.code, DEAD)
    assert account.keys("batches/") == []


def test_an_upload_that_a_dead_task_announced_is_not_announced_again(account: Account, world: World) -> None:
    account = world.account = aged(account)
    (done,) = uploads(account, 1)
    account.process(done)
    leave_note(account, [noted(done).model_copy(update={"announced": True})])
    assert drain(world)
    assert world.announced == []
    assert len(world.recorded) == 1


def test_the_note_of_an_earlier_task_is_finished_once_prefect_is_back(account: Account, world: World) -> None:
    account = world.account = with_settings(account, visibility_timeout_seconds=1)
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    world.is_away = True
    assert drain(world)
    assert len(account.keys("batches/")) == 1
    world.is_away = False
    world.account = aged(account)
    assert drain(world, task_arn="arn:aws:ecs:r:1:task/sluice/next")
    assert ([notice.run_id for notice in world.announced], account.keys("batches/")) == ([upload.run_id], [])
    assert [receipt.run_id for receipt in world.recorded] == [upload.run_id]


def test_a_young_note_is_left_to_its_task(account: Account, world: World) -> None:
    (done,) = uploads(account, 1)
    account.process(done)
    leave_note(account, [noted(done)])
    assert drain(world)
    assert world.announced == []
    assert len(account.keys("batches/")) == 1


def test_an_unreadable_note_does_not_hide_the_others(account: Account, world: World) -> None:
    account = world.account = aged(account)
    account.parts.store.put("batches/strange/1.json", "{}")
    (done,) = uploads(account, 1)
    account.process(done)
    leave_note(account, [noted(done)])
    assert drain(world)
    assert len(world.announced) == 1
    assert account.keys("batches/") == ["batches/strange/1.json"]


def aged(account: Account) -> Account:
    """Return an account in which every batch note counts as expired, while its messages are still invisible."""
    older = with_settings(account, visibility_timeout_seconds=-60)
    older.parts.queue.visibility_timeout_seconds = 30
    return older
