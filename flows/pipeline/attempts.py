"""Failed attempts, which record why an upload has no receipt yet.

The S3 object `attempts/<run_id>.json` describes the latest failure. Once a receipt exists for the same attempt or a
later one, the object is ignored, so it does not have to be deleted.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple, Self

from blocks.object_store import ObjectStore, StoredObject
from flows.pipeline.document import Document
from flows.pipeline.receipt import Receipt
from flows.refinery.errors import SluiceError, TerminalError, TransientError
from lambda_trigger.message import UploadMessage

PREFIX = "attempts/"
_MAX_MESSAGE_CHARACTERS = 2_000


class AttemptUnreadable(TerminalError):
    """An object under attempts/ is not a failed attempt with a schema version that this release can read."""


class Attempt(Document):
    """The most recent failure to process an upload."""

    noun, unreadable = "an attempt", AttemptUnreadable

    upload: UploadMessage
    dataset: str
    error: str  # the class of the error, such as AwsUnavailable
    code: str  # a stable name of the cause, in snake_case
    message: str  # what was wrong and what to do; it quotes no data
    transient: bool  # whether the upload may succeed if it is tried again
    receive_count: int = 1  # how many times the message had been delivered
    memory_kills: int = 0  # how many tasks ran out of memory and were killed while they refined this upload
    # whether nothing tries the upload again: the message is in the dead-letter queue, or about to move there, or this
    # attempt was a re-run or a repair
    given_up: bool = False
    task_arn: str | None = None
    at: str  # when processing failed, ISO 8601, UTC
    sent_again_at: str | None = None  # when a redrive or reconcile last sent the upload again; None if neither did
    message_id: str | None = None  # the SQS message; each time that the upload is sent again, it gets a new message

    @classmethod
    def of(
        cls,
        upload: UploadMessage,
        error: SluiceError,
        *,
        dataset: str,
        receive_count: int,
        task_arn: str | None,
        given_up: bool = False,
        memory_kills: int = 0,
        message_id: str | None = None,
    ) -> Self:
        """Return the record of an attempt that has just failed with `error`."""
        return cls(
            upload=upload,
            dataset=dataset,
            error=type(error).__name__,
            code=error.code,
            message=str(error)[:_MAX_MESSAGE_CHARACTERS],
            transient=isinstance(error, TransientError),
            receive_count=receive_count,
            memory_kills=memory_kills,
            given_up=given_up,
            task_arn=task_arn,
            at=_now(),
            message_id=message_id,
        )

    @property
    def run_id(self) -> str:
        return self.upload.run_id

    @property
    def reason(self) -> str:
        """Return why the attempt failed, in one line."""
        return f"{self.error}: {' '.join(self.message.split())}"

    @property
    def moved_at(self) -> datetime:
        """Return when the upload was last sent again or, if it was not, when the attempt failed."""
        return datetime.fromisoformat(self.sent_again_at or self.at)

    def is_superseded_by(self, receipt: Receipt | None) -> bool:
        """Return whether `receipt` belongs to this attempt at the upload or to a later one."""
        return receipt is not None and receipt.attempt >= self.upload.attempt


class FoundAttempt(NamedTuple):
    """A failed attempt and the S3 object that contains it; `stored` is None for an attempt that is not stored yet."""

    attempt: Attempt
    stored: StoredObject | None


def attempt_key(run_id: str) -> str:
    """Return the key of a run's failed attempt in the published bucket."""
    return f"{PREFIX}{run_id}.json"


def write_attempt(store: ObjectStore, attempt: Attempt) -> None:
    """Store a failed attempt in S3, replacing an earlier failed attempt of the same run."""
    store.put(attempt_key(attempt.run_id), attempt.to_json())


def find_attempt(store: ObjectStore, run_id: str) -> FoundAttempt | None:
    """Return the last failed attempt of a run together with its S3 object, or None if there is none. Raise
    AttemptUnreadable if this release cannot read it."""
    stored = store.get(attempt_key(run_id))
    return FoundAttempt(Attempt.from_json(stored.body), stored) if stored else None


def read_attempt(store: ObjectStore, run_id: str) -> Attempt | None:
    """Return the last failed attempt of a run, or None if there is none. Raise AttemptUnreadable if this release cannot
    read it."""
    found = find_attempt(store, run_id)
    return found.attempt if found else None


def reopen_attempt(store: ObjectStore, found: FoundAttempt) -> None:
    """Mark a failed attempt as being retried after its upload was sent again, unless the stored attempt has changed
    since it was `found`. Reset the count of killed tasks to zero, because the cause should have been removed."""
    changes = {"given_up": False, "memory_kills": 0, "sent_again_at": _now()}
    reopened = found.attempt.model_copy(update=changes)
    store.put_if_unchanged(attempt_key(reopened.run_id), reopened.to_json(), found.stored)


def remove_attempt(store: ObjectStore, run_id: str) -> None:
    """Delete the failed attempt of a run. Do nothing if there is none."""
    store.delete(attempt_key(run_id))


def runs_with_attempt(store: ObjectStore) -> Iterator[tuple[str, datetime]]:
    """Yield the ID of each run that has a failed attempt, and the time when the attempt was written."""
    for key, written in store.list_keys(PREFIX):
        yield key.removeprefix(PREFIX).removesuffix(".json"), written


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
