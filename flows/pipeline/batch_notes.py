"""Batch notes: small S3 objects that list the uploads a task holds, one note for each batch of messages it received.

A task writes the note `batches/<task>/<n>.json` before it processes the batch. It removes the note when each upload's
outcome has been announced and recorded, or the upload's message has been returned to the queue. If a task dies, its
notes remain, and another task takes them over and finishes them.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from blocks.object_store import ObjectStore, StoredObject
from flows.pipeline.document import Document
from flows.refinery.errors import TerminalError
from lambda_trigger.message import UploadMessage

PREFIX = "batches/"


class NoteUnreadable(TerminalError):
    """An object under batches/ is not a batch note with a schema version that this release can read."""


class NotedUpload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    upload: UploadMessage
    message_id: str
    receive_count: int = 1  # how many times its message had been delivered
    announced: bool = False  # whether its outcome was announced (flows/pipeline/announce.py)
    recorded: bool = False  # whether Prefect shows its outcome

    @property
    def run_id(self) -> str:
        return self.upload.run_id


class BatchNote(Document):
    """The content of a batch note: the uploads of one batch that a task holds."""

    noun, unreadable = "a batch note", NoteUnreadable

    task: str  # the task's ID, unique among tasks
    number: int  # the batch's number within the task, from 1
    task_arn: str | None = None
    execution_arn: str | None = None
    log_group: str | None = None  # where the task logs; None if that is unknown
    log_stream: str | None = None
    refining: str | None = None  # the run ID of the upload that was last marked as being refined (task_notes.py)
    taken_over_by: str | None = None  # the task that took this note over from a dead task
    uploads: tuple[NotedUpload, ...]
    at: str  # when the batch was received, ISO 8601, UTC

    @property
    def key(self) -> str:
        """Return the object key of the note in the published bucket."""
        return f"{PREFIX}{self.task}/{self.number}.json"

    def with_uploads(self, uploads: Iterable[NotedUpload]) -> Self:
        """Return a copy of the note that lists these uploads, none of them as being refined."""
        return self.model_copy(update={"uploads": tuple(uploads), "refining": None})


class FoundNote(NamedTuple):
    """A batch note, the S3 object that it was read from, and the time when that object was last written."""

    note: BatchNote
    stored: StoredObject
    written: datetime


def write_note(store: ObjectStore, note: BatchNote) -> None:
    """Store a batch note in S3, replacing its earlier state."""
    store.put(note.key, note.to_json())


def remove_note(store: ObjectStore, note: BatchNote) -> None:
    """Delete a batch note from S3. Do nothing if it does not exist."""
    store.delete(note.key)


def list_notes(store: ObjectStore) -> Iterator[tuple[str, datetime]]:
    """Yield the key of each batch note, and the time when it was last written."""
    return store.list_keys(PREFIX)


def read_note(store: ObjectStore, key: str, written: datetime) -> FoundNote | None:
    """Return a batch note that `list_notes` listed, or None if it has been deleted since. Raise NoteUnreadable if this
    release cannot read it."""
    stored = store.get(key)
    return FoundNote(BatchNote.from_json(stored.body), stored, written) if stored else None


def claim_note(store: ObjectStore, found: FoundNote, note: BatchNote) -> bool:
    """Replace a dead task's batch note with `note`, which must have the same key. Return False if another task changed
    the stored note first."""
    return store.put_if_unchanged(note.key, note.to_json(), found.stored)
