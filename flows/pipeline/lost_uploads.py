"""Find uploads that no message will bring to an outcome: those that were lost, and those that were given up.

An upload is lost if it has neither a receipt nor a failed attempt, no task holds it, and it came before the oldest
message in the queue was sent. Nothing else shows whether it has a message: SQS does not list what is queued.
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
    """The period of uploads to check: older ones are skipped, younger ones may still be in progress."""

    since: datetime
    until: datetime

    def holds(self, moment: datetime) -> bool:
        return self.since <= moment <= self.until


class GivenUp(NamedTuple):
    """An upload whose message is in the dead-letter queue or expired there, and why its last attempt failed."""

    upload: UploadMessage
    reason: str


@dataclass
class FoundUploads:
    """The uploads in the window, by state."""

    looked_at: int = 0  # number of object versions in the window
    under_way: int = 0  # number of uploads without an outcome that a task holds, or that may be queued
    lost: list[UploadMessage] = field(default_factory=list)  # uploads that no message exists for, at most `max_found`
    # uploads that failed and are not tried again; the first `max_found`
    given_up: list[GivenUp] = field(default_factory=list)
    given_up_count: int = 0  # number of all given-up uploads
    # number of uploads made while the bucket had no versioning; only S3's event identifies their run
    unidentified: int = 0
    more: bool = False  # whether the search stopped because `max_found` lost uploads were found


@dataclass(frozen=True)
class Finder:
    """Compares the landing bucket with receipts, attempts, batch notes and the queue."""

    store: ObjectStore
    held: HeldUploads  # what tasks hold
    none_queued_before: datetime | None  # uploads that came before are in no message; None if that is unknown
    is_data: Callable[[str], bool]  # whether the trigger dispatches a key
    page_size: int = 1000

    def find(self, window: Window, prefix: str, max_found: int) -> FoundUploads:
        """Look at every object version under `prefix`, page by page, with one page in memory.

        Args:
            max_found: number of lost uploads to stop at, and of given-up uploads to list.
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
        """Return an upload without a receipt if it is lost, or that it was given up; None if it is under way."""
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
        # A failed one that is not in the queue was killed at its last delivery: SQS moved its message.
        return GivenUp(attempt.upload, attempt.reason) if attempt else upload

    def _without_receipt(
        self, window: Window, prefix: str, found: FoundUploads
    ) -> Iterator[tuple[UploadMessage, datetime]]:
        landing = self.store.landing_bucket
        for page in self.store.versions(landing, prefix, page_size=self.page_size):
            # The trigger ignores folder markers as well: keys that end in a slash, without content.
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
    """Return the message that announces an object version."""
    return UploadMessage(
        bucket=bucket,
        key=version.key,
        version_id=version.version_id,
        etag=version.etag,
        size_bytes=version.size_bytes,
        event_time=version.last_modified.astimezone(UTC).isoformat(timespec="milliseconds"),
    )
