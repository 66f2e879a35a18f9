"""Finds uploads that have no receipt and no message in the queue: they were lost, or Sluice gave up on them.

An upload is lost if it has neither a receipt nor a failed attempt, no task holds it, and it is older than every message
in the queue. Only its age shows that it has no message, because SQS cannot list the messages in a queue.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from blocks.at_once import at_once
from blocks.object_store import ObjectStore, ObjectVersion
from flows.pipeline.attempts import AttemptUnreadable, read_attempt
from flows.pipeline.commit import has_receipt
from flows.pipeline.held_uploads import HeldUploads
from lambda_trigger.message import UploadMessage


@dataclass(frozen=True, slots=True)
class Window:
    """The period whose uploads are checked. Older uploads are skipped, and newer ones may still be in progress."""

    since: datetime
    until: datetime

    def holds(self, moment: datetime) -> bool:
        return self.since <= moment <= self.until


class GivenUp(NamedTuple):
    """An upload whose message is in the dead-letter queue or has expired there, and why its last attempt failed."""

    upload: UploadMessage
    reason: str


@dataclass
class FoundUploads:
    """The uploads that a search found in a window, or only their number, by state."""

    looked_at: int = 0  # number of object versions in the window
    under_way: int = 0  # number of uploads without an outcome that a task holds, or that may be queued
    lost: list[UploadMessage] = field(default_factory=list)  # uploads without any message, at most `max_found`
    # uploads that failed and are not tried again; the first `max_found`
    given_up: list[GivenUp] = field(default_factory=list)
    given_up_count: int = 0  # number of all given-up uploads
    # number of uploads made while the bucket had no versioning; only their S3 events identify their runs
    unidentified: int = 0
    more: bool = False  # whether the search stopped because `max_found` lost uploads were found


@dataclass(frozen=True)
class Finder:
    """Compares the landing bucket with receipts, failed attempts, batch notes and the queue."""

    store: ObjectStore
    held: HeldUploads  # the uploads that tasks hold
    none_queued_before: datetime | None  # no message in the queue was sent before this time; None if that is unknown
    is_data: Callable[[str], bool]  # returns whether the Lambda dispatches a key
    page_size: int = 1000

    def find(self, window: Window, prefix: str, max_found: int) -> FoundUploads:
        """Return the uploads without a receipt among the object versions under `prefix` that were written within
        `window`.

        Args:
            max_found: the number of lost uploads after which to stop, and of given-up uploads to list.
        """
        found = FoundUploads()
        for upload, came in self._without_receipt(window, prefix, found):
            if len(found.lost) == max_found:
                found.more = True
                break
            state = self._state(upload, came)
            if state is None:
                found.under_way += 1
            elif has_receipt(self.store, upload.run_id):  # written since the first check
                continue
            elif isinstance(state, GivenUp):
                found.given_up_count += 1
                if len(found.given_up) < max_found:
                    found.given_up.append(state)
            else:
                found.lost.append(upload)
        return found

    def _state(self, upload: UploadMessage, came: datetime) -> UploadMessage | GivenUp | None:
        """Return the state of an upload without a receipt: its message if it is lost, a GivenUp if Sluice gave up on
        it, or None if it may still be in progress."""
        try:
            attempt = read_attempt(self.store, upload.run_id)
        except AttemptUnreadable as error:
            return GivenUp(upload, str(error))
        if attempt and attempt.given_up:
            return GivenUp(attempt.upload, attempt.reason)
        sent = max(came, attempt.moved_at) if attempt else came
        may_be_queued = self.none_queued_before is None or sent >= self.none_queued_before
        if may_be_queued or upload.run_id in self.held.by_run:
            return None
        # The upload failed and is not in the queue: its task was killed on the last delivery, and SQS moved its
        # message.
        return GivenUp(attempt.upload, attempt.reason) if attempt else upload

    def _without_receipt(
        self, window: Window, prefix: str, found: FoundUploads
    ) -> Iterator[tuple[UploadMessage, datetime]]:
        landing = self.store.landing_bucket
        for page in self.store.versions(landing, prefix, page_size=self.page_size):
            # Like the Lambda, ignore folder markers: empty objects whose keys end in a slash.
            files = (version for version in page if version.size_bytes or not version.key.endswith("/"))
            due = [version for version in files if window.holds(version.last_modified) and self.is_data(version.key)]
            known = [
                (upload_of_version(landing, version), version.last_modified) for version in due if version.version_id
            ]
            found.looked_at += len(due)
            found.unidentified += len(due) - len(known)
            done = at_once(lambda one: has_receipt(self.store, one[0].run_id), known)
            yield from (one for one, is_done in zip(known, done, strict=True) if not is_done)


def upload_of_version(bucket: str, version: ObjectVersion) -> UploadMessage:
    """Return the queue message for an object version that S3 lists."""
    return UploadMessage(
        bucket=bucket,
        key=version.key,
        version_id=version.version_id,
        etag=version.etag,
        size_bytes=version.size_bytes,
        event_time=version.last_modified.astimezone(UTC).isoformat(timespec="milliseconds"),
    )
