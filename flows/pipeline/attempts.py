"""Attempts: why an upload has no receipt yet. `attempts/<run_id>.json` describes its last failed try.

Once there is a receipt for the same attempt or a later one, this object is ignored, so it need not be deleted.
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
    """An object under attempts/ is not an attempt of a schema that this release reads."""


class Attempt(Document):
    """The last failed try to process an upload."""

    noun, unreadable = "an attempt", AttemptUnreadable

    upload: UploadMessage  # the upload's message
    dataset: str
    error: str  # the class of the error, such as AwsUnavailable
    code: str  # a stable name of the cause, in snake_case
    message: str  # what was wrong and what to do; it quotes no data
    transient: bool  # whether the upload may succeed if it is tried again
    receive_count: int = 1  # how often the message had been delivered
    memory_kills: int = 0  # how many tasks were killed for lack of memory while they refined this upload
    given_up: bool = False  # whether the message moved, or is about to move, to the dead-letter queue
    task_arn: str | None = None
    at: str  # when the try ended, ISO 8601, UTC
    sent_again_at: str | None = None  # when its message was sent again afterwards (a redrive); None if it was not
    message_id: str | None = None  # the SQS message; a redrive sends a new one

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
        """Describe a try that has just ended with `error`."""
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
        """Return the upload's run id."""
        return self.upload.run_id

    @property
    def reason(self) -> str:
        """Return why the try failed, in one line."""
        return f"{self.error}: {' '.join(self.message.split())}"

    @property
    def moved_at(self) -> datetime:
        """Return when the try ended or, if that was later, when its message was sent again."""
        return datetime.fromisoformat(self.sent_again_at or self.at)

    def is_superseded_by(self, receipt: Receipt | None) -> bool:
        """Return whether a receipt is for this attempt at the upload, or for a later one."""
        return receipt is not None and receipt.attempt >= self.upload.attempt

    def to_json(self) -> str:
        """Return the JSON text that is stored in S3."""
        return self.model_dump_json(by_alias=True, indent=1)


class FoundAttempt(NamedTuple):
    """An attempt, and the object that it was read from; `stored` is None for an attempt that is not stored yet."""

    attempt: Attempt
    stored: StoredObject | None


def attempt_key(run_id: str) -> str:
    """Return the key under which a run's failed attempt is stored in the published bucket."""
    return f"{PREFIX}{run_id}.json"


def write_attempt(store: ObjectStore, attempt: Attempt) -> None:
    """Write an attempt, replacing an earlier one of the same run."""
    store.put(attempt_key(attempt.run_id), attempt.to_json())


def find_attempt(store: ObjectStore, run_id: str) -> FoundAttempt | None:
    """Return the last failed attempt of a run with its stored object, or None if there is none. Raise AttemptUnreadable
    if this release cannot read it."""
    stored = store.get(attempt_key(run_id))
    return FoundAttempt(Attempt.from_json(stored.body), stored) if stored else None


def read_attempt(store: ObjectStore, run_id: str) -> Attempt | None:
    """Return the last failed attempt of a run, or None if there is none. Raise AttemptUnreadable if this release cannot
    read it."""
    found = find_attempt(store, run_id)
    return found.attempt if found else None


def reopen_attempt(store: ObjectStore, found: FoundAttempt) -> None:
    """Mark an upload as being tried again after its message was sent again. Do nothing if the attempt has changed since
    it was `found`. The count of killed tasks starts at zero again, because the cause should have been removed."""
    changes = {"given_up": False, "memory_kills": 0, "sent_again_at": _now()}
    reopened = found.attempt.model_copy(update=changes)
    store.put_if_unchanged(attempt_key(reopened.run_id), reopened.to_json(), found.stored)


def remove_attempt(store: ObjectStore, run_id: str) -> None:
    """Remove the failed attempt of a run. It is no error if there is none."""
    store.delete(attempt_key(run_id))


def runs_with_attempt(store: ObjectStore) -> Iterator[tuple[str, datetime]]:
    """Yield the id of each run with a failed attempt, and when that was written."""
    for page in store.list_keys(PREFIX):
        yield from ((key.removeprefix(PREFIX).removesuffix(".json"), written) for key, written in page)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
