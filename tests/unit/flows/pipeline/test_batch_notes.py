"""A batch note, an S3 object that lists a task's uploads, lets another task take over if the first one dies."""

from __future__ import annotations

import pytest

from flows.pipeline.batch_notes import (
    BatchNote,
    FoundNote,
    NotedUpload,
    NoteUnreadable,
    claim_note,
    list_notes,
    read_note,
    remove_note,
    write_note,
)
from lambda_trigger.message import UploadMessage
from tests.unit.flows.conftest import Account

UPLOAD = UploadMessage(bucket="landing", key="incoming/orders/a.csv", version_id="v1", etag="e", size_bytes=3)
NOTE = BatchNote(task="t1", number=1, uploads=(NotedUpload(upload=UPLOAD, message_id="m1"),), at="2026-01-01T00:00:00Z")


def found(account: Account) -> FoundNote:
    ((key, written),) = list_notes(account.parts.store)
    note = read_note(account.parts.store, key, written)
    assert note is not None
    return note


def test_a_note_is_read_as_it_was_written_until_it_is_removed(account: Account) -> None:
    write_note(account.parts.store, NOTE)
    assert found(account).note == NOTE
    remove_note(account.parts.store, NOTE)
    assert list(list_notes(account.parts.store)) == []


def test_only_one_task_takes_over_a_dead_tasks_note(account: Account) -> None:
    store = account.parts.store
    write_note(store, NOTE.model_copy(update={"refining": UPLOAD.run_id}))
    first = second = found(account)
    assert claim_note(store, first, first.note.with_uploads(first.note.uploads))
    assert not claim_note(store, second, second.note)
    assert found(account).note.refining is None


def test_a_note_that_was_removed_meanwhile_is_none(account: Account) -> None:
    write_note(account.parts.store, NOTE)
    ((key, written),) = list_notes(account.parts.store)
    remove_note(account.parts.store, NOTE)
    assert read_note(account.parts.store, key, written) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}'])
def test_an_invalid_note_is_reported_as_unreadable(account: Account, text: str) -> None:
    account.parts.store.put("batches/t1/1.json", text)
    with pytest.raises(NoteUnreadable):
        found(account)
