"""Reads batch notes, without changing them, to find the uploads that tasks hold."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from blocks.at_once import at_once
from blocks.object_store import ObjectStore
from flows.pipeline.batch_notes import BatchNote, FoundNote, NotedUpload, NoteUnreadable, list_notes, read_note

MAX_NOTES = 1_000


@dataclass(frozen=True, slots=True)
class HeldUpload:
    """An upload that a task holds, or held when it died, and the batch note that lists it."""

    noted: NotedUpload
    note: BatchNote

    @property
    def is_refined(self) -> bool:
        """Return whether the task last marked this upload as being refined."""
        return self.note.refining == self.noted.run_id


@dataclass
class HeldUploads:
    """The uploads that batch notes list as being held by tasks."""

    # by run ID; if several notes list the same run, the newest note is used
    by_run: dict[str, HeldUpload] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)  # keys of notes that could not be read, and why
    more: bool = False  # whether older notes were left out


def read_held_uploads(store: ObjectStore, *, max_notes: int = MAX_NOTES) -> HeldUploads:
    """Return the uploads in the newest batch notes. At most `max_notes` are read, because a Prefect outage may leave
    thousands of notes."""
    newest = sorted(list_notes(store), key=lambda listed: listed[1], reverse=True)
    held = HeldUploads(more=len(newest) > max_notes)
    for found in reversed(list(_readable(store, newest[:max_notes], held.unreadable))):
        held.by_run.update((noted.run_id, HeldUpload(noted, found.note)) for noted in found.note.uploads)
    return held


def _readable(
    store: ObjectStore, listed: Iterable[tuple[str, datetime]], unreadable: dict[str, str]
) -> Iterator[FoundNote]:
    def read(one: tuple[str, datetime]) -> FoundNote | None:
        try:
            return read_note(store, *one)
        except NoteUnreadable as error:
            unreadable[one[0]] = str(error)
            return None

    return filter(None, at_once(read, listed))
