"""Writes a task's batch notes, small S3 objects that list the uploads of each batch that the task holds.

A note is written before the task processes the batch, and deleted when the batch is done. It also marks the upload that
is being refined, so that another task can find out which upload made this task run out of memory. To save writes, an
upload is marked only if it takes longer than NAMED_AFTER_SECONDS, was delivered before, or is alone in its batch.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock, Timer

from blocks.object_store import ObjectStore
from flows.pipeline.batch_notes import BatchNote, NotedUpload, remove_note, write_note
from flows.pipeline.delivery import Delivery
from flows.pipeline.job import TaskIdentity
from flows.refinery.errors import SluiceError

LOG = logging.getLogger("sluice.drain")
NAMED_AFTER_SECONDS = 0.5


@dataclass(eq=False)
class _Batch:
    """A batch note and the deliveries that it lists."""

    note: BatchNote
    deliveries: list[Delivery]
    is_written: bool = False


class TaskNotes:
    """The batch notes of one task. If a note cannot be written, work continues, because notes only help other tasks.

    Attributes:
        left: the keys of notes whose messages are gone, but whose outcomes still have to be announced or recorded.
    """

    def __init__(self, store: ObjectStore, task: TaskIdentity) -> None:
        self._store = store
        self._task = task
        self._count = 0
        self._batches: list[_Batch] = []
        self._lock = Lock()
        self.left: list[str] = []

    def open(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            self._count += 1
            log, only = self._task.log, deliveries[0].run_id if len(deliveries) == 1 else None
            note = BatchNote(
                task=self._task.name,
                number=self._count,
                task_arn=self._task.task_arn,
                execution_arn=self._task.execution_arn,
                log_group=log.group if log else None,
                log_stream=log.stream if log else None,
                refining=only,
                uploads=tuple(map(_noted, deliveries)),
                at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            )
            batch = _Batch(note, list(deliveries))
            self._batches.append(batch)
            self._write(batch)

    @contextmanager
    def refining(self, delivery: Delivery) -> Iterator[None]:
        """Mark the upload in its note as being refined: immediately if it was delivered before, otherwise only if the
        block takes longer than NAMED_AFTER_SECONDS."""
        batch = self._batch_of(delivery)
        if batch is None or batch.note.refining == delivery.run_id:
            yield
            return
        if delivery.came_again:  # it may have killed its previous task before it was marked
            self._name(batch, delivery)
            yield
            return
        timer = Timer(NAMED_AFTER_SECONDS, self._name, (batch, delivery))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def settle(self) -> None:
        """Remove the notes of batches whose deliveries are all closed. If a batch has outcomes that still have to be
        announced or recorded, keep its note with only those uploads, and add the note's key to `left`."""
        with self._lock:
            for batch in list(self._batches):
                if not all(delivery.is_closed for delivery in batch.deliveries):
                    continue
                self._batches.remove(batch)
                open_ = [delivery for delivery in batch.deliveries if not delivery.is_settled]
                if open_:
                    batch.note = batch.note.with_uploads(map(_noted, open_))
                    self._write(batch)
                    self.left.append(batch.note.key)
                else:
                    self._try(remove_note, batch.note)

    def abandon(self, deliveries: Collection[Delivery] | None = None) -> None:
        """Remove deliveries from their notes, because their messages were returned to the queue. None means all
        deliveries without an outcome; the others then count as closed."""
        with self._lock:
            for batch in self._batches:
                gone = [
                    each
                    for each in batch.deliveries
                    if (not each.outcome if deliveries is None else each in deliveries)
                ]
                batch.deliveries = [each for each in batch.deliveries if each not in gone]
                for delivery in batch.deliveries:
                    delivery.is_closed |= deliveries is None
        self.settle()

    def touch(self) -> None:
        """Write the notes again unchanged, so that they stay recent. An old note counts as a dead task's."""
        with self._lock:
            for batch in self._batches:
                self._write(batch)

    def is_kept(self, delivery: Delivery) -> bool:
        """Return whether a stored note lists the delivery. If its note has not been stored yet, try to write it now."""
        with self._lock:
            batch = self._batch_of(delivery)
            return batch is not None and (batch.is_written or self._write(batch))

    def _batch_of(self, delivery: Delivery) -> _Batch | None:
        return next((batch for batch in self._batches if delivery in batch.deliveries), None)

    def _name(self, batch: _Batch, delivery: Delivery) -> None:
        with self._lock:
            if batch in self._batches and delivery in batch.deliveries:
                batch.note = batch.note.model_copy(update={"refining": delivery.run_id})
                self._write(batch)

    def _write(self, batch: _Batch) -> bool:
        batch.is_written = self._try(write_note, batch.note) or batch.is_written
        return batch.is_written

    def _try(self, do: Callable[[ObjectStore, BatchNote], None], note: BatchNote) -> bool:
        try:
            do(self._store, note)
        except SluiceError as error:
            LOG.warning("batch note not written", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
            return False
        return True


def _noted(delivery: Delivery) -> NotedUpload:
    return NotedUpload(
        upload=delivery.upload,
        message_id=delivery.message.message_id,
        receive_count=delivery.message.receive_count,
        announced=delivery.announced,
        recorded=delivery.recorded,
    )
