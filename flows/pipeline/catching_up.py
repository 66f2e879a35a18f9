"""Finishes remaining batch notes: announces and records outcomes, and stores why dead tasks did not finish uploads.

A batch note is a small S3 object that lists the uploads that a task holds. It remains if the task died, if EventBridge
rejected an outcome, or if Prefect was down. Each task tries to finish such notes before it ends.
"""

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from flows.pipeline.announce import notice_of
from flows.pipeline.attempts import Attempt, AttemptUnreadable, read_attempt
from flows.pipeline.batch_notes import (
    FoundNote,
    NotedUpload,
    NoteUnreadable,
    claim_note,
    read_note,
    remove_note,
    write_note,
)
from flows.pipeline.closing import Outlets
from flows.pipeline.commit import read_receipt
from flows.pipeline.dead_tasks import DeadTasks
from flows.pipeline.job import Parts, TaskIdentity
from flows.pipeline.protocol import is_done
from flows.pipeline.receipt import Receipt, ReceiptUnreadable
from flows.refinery.errors import SluiceError

LOG = logging.getLogger("sluice.drain")
_NOTES_AT_ONCE = 10  # they list up to a hundred uploads, as many as one call to Prefect can record


class CatchingUp:
    """Finishes the batch notes of this task, and those left by dead tasks."""

    def __init__(self, parts: Parts, task: TaskIdentity, outlets: Outlets, dead_tasks: DeadTasks) -> None:
        self._parts = parts
        self._task = task
        self._outlets = outlets
        self._dead_tasks = dead_tasks

    def finish(self, own: list[str], until: float) -> None:
        """Finish this task's batch notes, then the old notes of other tasks. Stop if no note can be finished because
        EventBridge or Prefect is unavailable. SluiceErrors are logged, not raised.

        Args:
            own: the keys of this task's unfinished notes; the keys of finished notes are removed from the list.
            until: the value of time.monotonic() after which no further notes are begun.
        """
        try:
            notes = itertools.chain(self._own(own), self._of_dead_tasks())
            while time.monotonic() < until and (some := list(itertools.islice(notes, _NOTES_AT_ONCE))):
                finished = self._finish(some)
                own[:] = [key for key in own if key not in finished]
                if not finished:
                    return  # EventBridge or Prefect is still unavailable
        except SluiceError as error:
            LOG.warning("batch notes not finished", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})

    def _own(self, keys: Iterable[str]) -> Iterator[FoundNote]:
        for key in list(keys):
            try:
                found = read_note(self._parts.store, key, datetime.now(UTC))
            except NoteUnreadable:
                continue
            if found:
                yield found

    def _of_dead_tasks(self) -> Iterator[FoundNote]:
        for found in self._dead_tasks.notes_of_others(
            older_than_seconds=self._parts.settings.visibility_timeout_seconds
        ):
            mine = found.note.model_copy(update={"taken_over_by": f"{self._task.name} at {time.time()}"})
            if claim_note(self._parts.store, found, mine):
                yield found._replace(note=mine)

    def _finish(self, some: list[FoundNote]) -> set[str]:
        """Announce and record the outcomes of the uploads in these notes. Return the keys of the notes that are now
        finished."""
        left = {found.note.key: list(self._outcomes_of(found)) for found in some}
        outcomes = [each for of_note in left.values() for each in of_note]
        notices = [notice_of(outcome, self._parts.settings) for noted, outcome in outcomes if not noted.announced]
        unrecorded = [outcome for noted, outcome in outcomes if not noted.recorded]
        announced = self._outlets.announce(notices) if notices else frozenset()
        recorded = self._outlets.record(unrecorded) if unrecorded else frozenset()
        finished = set()
        for found in some:
            marked = (_marked(noted, announced, recorded) for noted, _ in left[found.note.key])
            note = found.note.with_uploads(noted for noted in marked if not (noted.announced and noted.recorded))
            if note.uploads:
                write_note(self._parts.store, note)
            else:
                remove_note(self._parts.store, note)
                finished.add(note.key)
        LOG.info("batch notes processed", extra={"fields": {"notes": len(some), "finished": len(finished)}})
        return finished

    def _outcomes_of(self, found: FoundNote) -> Iterator[tuple[NotedUpload, Receipt | Attempt]]:
        """Yield each upload in a note that has an outcome, with the outcome: a receipt, or the failed attempt after
        which Sluice gave up on the upload. For each upload without an outcome, whose message is back in the queue,
        store the reason if its task died."""
        for noted in found.note.uploads:
            if outcome := self._outcome_of(noted, found):
                yield noted, outcome

    def _outcome_of(self, noted: NotedUpload, found: FoundNote) -> Receipt | Attempt | None:
        store, attempt = self._parts.store, noted.upload.attempt
        try:
            receipt = read_receipt(store, noted.run_id)
            if receipt and is_done(receipt, attempt):
                return receipt
            failure = read_attempt(store, noted.run_id)
        except (ReceiptUnreadable, AttemptUnreadable):
            return None  # written by a later release
        if failure and failure.given_up and failure.upload.attempt == attempt:
            return failure
        end = self._dead_tasks.end_of(found) if found.note.task != self._task.name else None
        if end:
            self._dead_tasks.write_reason(noted, found.note, end)
        return None


def _marked(noted: NotedUpload, announced: frozenset[str], recorded: frozenset[str]) -> NotedUpload:
    return noted.model_copy(
        update={
            "announced": noted.announced or noted.run_id in announced,
            "recorded": noted.recorded or noted.run_id in recorded,
        }
    )
