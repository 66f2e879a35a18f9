"""Batch notes: which uploads a task holds. `batches/<task>/<n>.json` lists the uploads of one batch that it received.

A task writes the note before it works on the batch. It removes the note when each upload's outcome is announced and
recorded, or its message was returned. If a task dies, its note stays, and another task takes it over and finishes it.
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
    """An object under batches/ is not a batch note of a schema that this release reads."""


class NotedUpload(BaseModel):
    """One upload of a batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upload: UploadMessage
    message_id: str
    receive_count: int = 1  # how often its message had been delivered
    announced: bool = False  # whether its outcome was announced (flows/pipeline/announce.py)
    recorded: bool = False  # whether Prefect shows its outcome

    @property
    def run_id(self) -> str:
        """Return the upload's run id."""
        return self.upload.run_id


class BatchNote(Document):
    """The uploads of one batch that a task holds."""

    noun, unreadable = "a batch note", NoteUnreadable

    task: str  # the task's id, unique among tasks
    number: int  # the batch's number within the task, from 1
    task_arn: str | None = None
    execution_arn: str | None = None
    log_group: str | None = None  # where the task logs; None if that is not known
    log_stream: str | None = None
    refining: str | None = None  # the run that is being refined; None between two uploads
    taken_over_by: str | None = None  # the task that finishes this note of a dead task, and when it took it over
    uploads: tuple[NotedUpload, ...]
    at: str  # when the batch was received, ISO 8601, UTC

    @property
    def key(self) -> str:
        """Return the note's key in the published bucket."""
        return f"{PREFIX}{self.task}/{self.number}.json"

    def with_uploads(self, uploads: Iterable[NotedUpload]) -> Self:
        """Return a copy of the note with these uploads, none of them being refined."""
        return self.model_copy(update={"uploads": tuple(uploads), "refining": None})

    def to_json(self) -> str:
        """Return the JSON text that is stored in S3."""
        return self.model_dump_json(by_alias=True)


class FoundNote(NamedTuple):
    """A note, the object that it was read from, and when that was last written."""

    note: BatchNote
    stored: StoredObject
    written: datetime


def write_note(store: ObjectStore, note: BatchNote) -> None:
    """Write a note, replacing its earlier state."""
    store.put(note.key, note.to_json())


def remove_note(store: ObjectStore, note: BatchNote) -> None:
    """Remove a note. It is no error if it does not exist."""
    store.delete(note.key)


def list_notes(store: ObjectStore) -> Iterator[tuple[str, datetime]]:
    """Yield the keys of all notes, and when each was last written."""
    for page in store.list_keys(PREFIX):
        yield from page


def read_note(store: ObjectStore, key: str, written: datetime) -> FoundNote | None:
    """Return a note that `list_notes` listed; None if it has been removed since. Raise NoteUnreadable if this release
    cannot read it."""
    stored = store.get(key)
    return FoundNote(BatchNote.from_json(stored.body), stored, written) if stored else None


def claim_note(store: ObjectStore, found: FoundNote, note: BatchNote) -> bool:
    """Replace a dead task's note with `note`, which has the same key; return False if another task was faster."""
    return store.put_if_unchanged(note.key, note.to_json(), found.stored)
