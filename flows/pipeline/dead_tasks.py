"""Records why a task died while it held an upload, and gives up on an upload that made two tasks run out of memory.

A task that is killed cannot report this itself. Its batch note, a small S3 object, lists the uploads that it held, and
ECS reports why the task ended.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flows.pipeline.attempts import Attempt, read_attempt, write_attempt
from flows.pipeline.batch_notes import (
    BatchNote,
    FoundNote,
    NotedUpload,
    NoteUnreadable,
    claim_note,
    list_notes,
    read_note,
    remove_note,
)
from flows.pipeline.commit import read_receipt
from flows.pipeline.delivery import Delivery, dataset_of, fail
from flows.pipeline.errors import TaskDied, TaskTooSmall
from flows.pipeline.job import Parts, TaskIdentity
from flows.refinery.errors import SluiceError

LOG = logging.getLogger("sluice.drain")
_KILLS_TO_GIVE_UP = 2
_NOTES_READ = 200  # only the newest: a task that just died has a recent note, but a Prefect outage may leave thousands


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """Whether and how an ECS task ended."""

    is_over: bool  # whether it has ended
    cause: str = ""  # a few words; empty if the cause is unknown
    lacked_memory: bool = False  # whether it was killed because it ran out of memory, as far as ECS can tell
    memory_mib: int | None = None  # how much memory it had


EndOfTask = Callable[[str], TaskEnd | None]
"""A function that returns how the task with a given ARN ended, or None if that is unknown."""


class DeadTasks:
    """Finds the batch notes of dead tasks, and records what happened to the uploads that they list."""

    def __init__(self, parts: Parts, task: TaskIdentity, end_of_task: EndOfTask) -> None:
        self._parts = parts
        self._task = task
        self._end_of_task = end_of_task
        self._ends: dict[str, TaskEnd] = {}

    def explain(self, deliveries: Sequence[Delivery]) -> None:
        """For each upload that was delivered again, find out whether its last task died, and store the reason. Give up
        on an upload, by setting the delivery's failure, if two tasks ran out of memory while they refined it.

        SluiceErrors are logged, not raised, because the upload is tried again even without an explanation.
        """
        again = {delivery.run_id: delivery for delivery in deliveries if delivery.came_again}
        if not again:
            return
        try:
            for delivery in again.values():
                self._remember(delivery)
            for found in itertools.islice(self.notes_of_others(newest_first=True), _NOTES_READ):
                held = [noted for noted in found.note.uploads if _is_earlier(noted, again)]
                end = self.end_of(found) if held else None
                if end:
                    self._explain_each(held, found, end, again)
        except SluiceError as error:
            LOG.warning("dead task not explained", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})

    def _remember(self, delivery: Delivery) -> None:
        """Set how many tasks ran out of memory while they refined a delivery's upload. If Sluice already gave up on the
        message, also set the failure, so that the upload is not tried again and the message moves to the dead-letter
        queue."""
        attempt = read_attempt(self._parts.store, delivery.run_id)
        delivery.memory_kills = _kills(attempt)
        if attempt and attempt.given_up and attempt.message_id == delivery.message.message_id:
            receipt = read_receipt(self._parts.store, delivery.run_id)
            delivery.failure = None if attempt.is_superseded_by(receipt) else attempt

    def notes_of_others(self, *, older_than_seconds: float = 0, newest_first: bool = False) -> Iterator[FoundNote]:
        """Yield the batch notes of other tasks that were not written in the last `older_than_seconds`, oldest first
        unless `newest_first`. Notes that cannot be read are logged and skipped."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        listed = sorted(list_notes(self._parts.store), key=lambda note: note[1], reverse=newest_first)
        for key, written in listed:
            if key.split("/")[1] == self._task.name or written > before:
                continue
            try:
                found = read_note(self._parts.store, key, written)
            except NoteUnreadable as error:
                LOG.warning("batch note unreadable", extra={"fields": {"key": key, "error": str(error)}})
                continue
            if found:
                yield found

    def end_of(self, found: FoundNote) -> TaskEnd | None:
        """Return how the task that wrote a note ended, or None if it is still running. If ECS has no record of the
        task, it counts as dead once its note is older than the visibility timeout."""
        arn = found.note.task_arn or ""
        if arn and arn not in self._ends:
            end = self._end_of_task(arn)
            if end and not end.is_over:
                return None
            if end:
                self._ends[arn] = end
        if arn in self._ends:
            return self._ends[arn]
        age = datetime.now(UTC) - found.written
        return TaskEnd(True) if age.total_seconds() > self._parts.settings.visibility_timeout_seconds else None

    def write_reason(self, noted: NotedUpload, note: BatchNote, end: TaskEnd) -> Attempt:
        """Store the reason why the task that wrote `note` did not finish an upload, and return the stored attempt."""
        before = read_attempt(self._parts.store, noted.run_id)
        if before and (before.task_arn, before.code) == (note.task_arn, TaskDied.code):
            return before  # written by another task
        was_refined = note.refining == noted.run_id
        attempt = Attempt.of(
            noted.upload,
            TaskDied(_reason(note, end, was_refined=was_refined)),
            dataset=dataset_of(noted.upload, self._parts),
            receive_count=noted.receive_count,
            task_arn=note.task_arn,
            memory_kills=_kills(before) + (was_refined and end.lacked_memory),
        )
        write_attempt(self._parts.store, attempt)
        return attempt

    def take_out(self, found: FoundNote, runs: Iterable[str]) -> None:
        """Remove the uploads of these runs from a dead task's note, and delete the note if it lists no others."""
        gone = set(runs)
        left = found.note.with_uploads(noted for noted in found.note.uploads if noted.run_id not in gone)
        left = left.model_copy(update={"taken_over_by": self._task.name})
        if claim_note(self._parts.store, found, left) and not left.uploads:
            remove_note(self._parts.store, left)

    def _explain_each(
        self, held: Sequence[NotedUpload], found: FoundNote, end: TaskEnd, again: dict[str, Delivery]
    ) -> None:
        for noted in held:
            delivery = again[noted.run_id]
            if delivery.failure:
                continue  # given up before
            delivery.memory_kills = self.write_reason(noted, found.note, end).memory_kills
            fields = {"run_id": noted.run_id, "task": found.note.task, "cause": end.cause}
            LOG.warning("the upload's last task died", extra={"fields": fields})
            if delivery.memory_kills >= _KILLS_TO_GIVE_UP:
                fail(delivery, _too_small(end), self._parts, self._task, give_up=True)
        self.take_out(found, [noted.run_id for noted in held])


def _is_earlier(noted: NotedUpload, again: dict[str, Delivery]) -> bool:
    """Return whether an upload in a note is from an earlier delivery of a message that was delivered again."""
    delivery = again.get(noted.run_id)
    return (
        delivery is not None
        and delivery.message.message_id == noted.message_id
        and delivery.message.receive_count > noted.receive_count
    )


def _kills(attempt: Attempt | None) -> int:
    """Return how many tasks ran out of memory while they refined an upload. The count starts again at 0 once Sluice has
    given up on the upload."""
    return attempt.memory_kills if attempt and not attempt.given_up else 0


def _reason(note: BatchNote, end: TaskEnd, *, was_refined: bool) -> str:
    doing = "was refining this upload" if was_refined else "held this upload"
    return f"task {note.task} ended while it {doing}: {end.cause or 'the cause is unknown'}"


def _too_small(end: TaskEnd) -> TaskTooSmall:
    had = f" of {end.memory_mib:,} MiB" if end.memory_mib else ""
    need = f"{2 * end.memory_mib:,} MiB" if end.memory_mib else "more memory"
    return TaskTooSmall(
        f"two tasks{had} were killed for lack of memory while they refined this upload; give the task {need} "
        "(the stack's parameter TaskMemory), and redrive the dead-letter queue"
    )
