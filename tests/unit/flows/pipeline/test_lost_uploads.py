"""An upload is lost if nothing has been recorded about it and the queue cannot contain its message."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from flows.pipeline.attempts import Attempt, find_attempt, read_attempt, reopen_attempt, write_attempt
from flows.pipeline.batch_notes import BatchNote, NotedUpload, write_note
from flows.pipeline.errors import OutOfMemory
from flows.pipeline.held_uploads import read_held_uploads
from flows.pipeline.lost_uploads import Finder, FoundUploads, Window
from lambda_trigger.ignored_names import IGNORED_NAMES, is_ignored
from lambda_trigger.message import UploadMessage
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account

_ALL = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
_LATER = datetime.now(UTC) + timedelta(hours=1)
_AT = "2026-01-01T00:00:00.000+00:00"


@dataclass
class Landing:
    """A landing bucket in which a test uploads files and searches for lost uploads.

    Attributes:
        none_queued_before: no message in the queue is older than this; None if that is unknown.
    """

    account: Account
    none_queued_before: datetime | None = field(default_factory=lambda: _LATER)

    def look(self, window: Window = _ALL, *, max_found: int = 100, page_size: int = 1000) -> FoundUploads:
        store = self.account.parts.store
        finder = Finder(
            store,
            read_held_uploads(store),
            self.none_queued_before,
            is_data=lambda key: not is_ignored(key, "incoming/", IGNORED_NAMES),
            page_size=page_size,
        )
        return finder.find(window, "incoming/", max_found)

    def upload(self, name: str, body: bytes = b"a\n1\n") -> UploadMessage:
        return self.account.upload(f"incoming/{name}", body)

    def finish(self, upload: UploadMessage) -> None:
        key = f"receipts/{upload.run_id}.json"
        boto3.client("s3").put_object(Bucket=PUBLISHED, Key=key, Body=b"of some later schema")

    def fail(self, upload: UploadMessage, **more: Any) -> None:
        fields = {"dataset": "orders", "receive_count": 5, "task_arn": None, **more}
        write_attempt(self.account.parts.store, Attempt.of(upload, OutOfMemory("too small"), **fields))

    def hold(self, upload: UploadMessage) -> None:
        noted = NotedUpload(upload=upload, message_id="m")
        write_note(self.account.parts.store, BatchNote(task="t", number=1, at=_AT, uploads=(noted,)))


@pytest.fixture
def landing(account: Account) -> Landing:
    return Landing(account)


def _runs_of(found: FoundUploads) -> list[str]:
    return [upload.run_id for upload in found.lost]


def test_an_upload_without_any_record_is_lost(landing: Landing) -> None:
    done, lost = landing.upload("done.csv"), landing.upload("lost.csv")
    landing.finish(done)
    found = landing.look()
    assert (found.looked_at, _runs_of(found)) == (2, [lost.run_id])


def test_an_upload_that_is_newer_than_the_oldest_message_is_under_way(landing: Landing) -> None:
    landing.upload("queued.csv")
    landing.none_queued_before = datetime.now(UTC) - timedelta(hours=1)
    found = landing.look()
    assert (found.under_way, found.lost) == (1, [])


def test_while_the_age_of_the_oldest_message_is_unknown_nothing_is_lost(landing: Landing) -> None:
    landing.upload("queued.csv")
    landing.none_queued_before = None
    found = landing.look()
    assert (found.under_way, found.lost) == (1, [])


def test_an_upload_that_a_task_holds_is_under_way(landing: Landing) -> None:
    landing.hold(landing.upload("held.csv"))
    found = landing.look()
    assert (found.under_way, found.lost) == (1, [])


@pytest.mark.parametrize(
    ("given_up", "hours", "given_up_count"),
    [
        (True, 1, 1),
        (True, -1, 1),
        (True, None, 1),
        (False, 1, 1),  # killed on its last delivery, so SQS moved the message and no task recorded it
        (False, -1, 0),
        (False, None, 0),
    ],
    ids=str,
)
def test_a_failed_upload_is_given_up_if_a_task_recorded_that_or_its_message_is_not_in_the_queue(
    landing: Landing, given_up: bool, hours: int | None, given_up_count: int
) -> None:
    upload = landing.upload("failed.csv")
    landing.fail(upload, given_up=given_up)
    landing.none_queued_before = None if hours is None else datetime.now(UTC) + timedelta(hours=hours)
    found = landing.look()
    assert (found.lost, found.given_up_count, found.under_way) == ([], given_up_count, 1 - given_up_count)
    reasons = [(one.upload.run_id, one.reason) for one in found.given_up]
    assert reasons == [(upload.run_id, "OutOfMemory: too small")] * given_up_count


def test_an_upload_that_was_given_up_is_not_under_way_while_a_note_still_names_it(landing: Landing) -> None:
    upload = landing.upload("failed.csv")
    landing.hold(upload)
    landing.fail(upload, given_up=True)
    assert (landing.look().given_up_count, landing.look().under_way) == (1, 0)


def test_an_upload_whose_attempt_cannot_be_read_is_named_and_not_lost(landing: Landing) -> None:
    upload, lost = landing.upload("a.csv"), landing.upload("b.csv")
    landing.account.parts.store.put(f"attempts/{upload.run_id}.json", "{}")
    found = landing.look()
    assert ([one.upload.run_id for one in found.given_up], _runs_of(found)) == ([upload.run_id], [lost.run_id])


def test_an_upload_that_was_sent_again_is_under_way_while_its_message_may_wait(landing: Landing) -> None:
    upload, store = landing.upload("failed.csv"), landing.account.parts.store
    landing.fail(upload)
    attempt = read_attempt(store, upload.run_id)
    assert attempt is not None
    assert landing.look().given_up_count == 1
    write_attempt(store, attempt.model_copy(update={"sent_again_at": (_LATER + timedelta(hours=1)).isoformat()}))
    assert (landing.look().under_way, landing.look().given_up_count) == (1, 0)


def test_a_reopened_attempt_has_no_kills_and_keeps_its_reason(landing: Landing) -> None:
    upload, store = landing.upload("failed.csv"), landing.account.parts.store
    landing.fail(upload, given_up=True, memory_kills=2)
    found = find_attempt(store, upload.run_id)
    assert found is not None
    reopen_attempt(store, found)
    reopened = read_attempt(store, upload.run_id)
    assert reopened is not None
    assert (reopened.given_up, reopened.memory_kills, reopened.reason) == (False, 0, found.attempt.reason)
    assert reopened.sent_again_at is not None


def test_an_attempt_that_was_replaced_meanwhile_is_not_reopened(landing: Landing) -> None:
    upload, store = landing.upload("failed.csv"), landing.account.parts.store
    landing.fail(upload, given_up=True)
    found = find_attempt(store, upload.run_id)
    assert found is not None
    landing.fail(upload, given_up=True, receive_count=1)
    reopen_attempt(store, found)
    current = read_attempt(store, upload.run_id)
    assert current is not None
    assert (current.given_up, current.receive_count) == (True, 1)


def test_every_version_of_a_key_is_an_upload_and_a_delete_marker_is_not(landing: Landing) -> None:
    versions = [landing.upload("twice.csv", body) for body in (b"a\n1\n", b"a\n2\n")]
    boto3.client("s3").delete_object(Bucket=LANDING, Key="incoming/twice.csv")
    assert set(_runs_of(landing.look())) == {version.run_id for version in versions}


def test_folder_markers_and_objects_under_other_prefixes_are_not_uploads(landing: Landing) -> None:
    landing.upload("orders/", b"")
    landing.account.upload("elsewhere/a.csv", b"a\n1\n")
    assert landing.look() == FoundUploads()


def test_a_file_whose_name_ends_in_a_slash_is_an_upload(landing: Landing) -> None:
    upload = landing.upload("orders/")
    assert _runs_of(landing.look()) == [upload.run_id]


def test_files_that_the_trigger_ignores_are_not_lost(landing: Landing) -> None:
    landing.upload("orders/_SUCCESS")
    lost = landing.upload("orders/lost.csv")
    assert _runs_of(landing.look()) == [lost.run_id]


def test_only_uploads_in_the_window_are_looked_at(landing: Landing) -> None:
    landing.upload("young.csv")
    now, hour = datetime.now(UTC), timedelta(hours=1)
    assert landing.look(Window(now - 2 * hour, now - hour)) == FoundUploads()
    assert landing.look(Window(now + hour, now + 2 * hour)) == FoundUploads()
    assert len(landing.look(Window(now - hour, now + hour)).lost) == 1


def test_a_large_bucket_is_read_in_pages_and_a_search_finds_at_most_the_given_number(landing: Landing) -> None:
    uploads = [landing.upload(f"{number:02}.csv") for number in range(7)]
    assert len(landing.look(page_size=2).lost) == 7
    first = landing.look(max_found=3, page_size=2)
    assert (_runs_of(first), first.more) == ([upload.run_id for upload in uploads[:3]], True)
    for upload in first.lost:
        landing.finish(upload)
    second = landing.look(max_found=3, page_size=2)
    assert _runs_of(second) == [upload.run_id for upload in uploads[3:6]]


def test_an_upload_without_a_version_is_counted_as_unidentified_and_not_as_lost(landing: Landing) -> None:
    s3 = boto3.client("s3")
    s3.put_bucket_versioning(Bucket=LANDING, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=LANDING, Key="incoming/null.csv", Body=b"a\n1\n")
    found = landing.look()
    assert (found.looked_at, found.unidentified, found.lost) == (1, 1, [])
