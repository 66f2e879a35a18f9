"""Attempts: why an upload has no receipt yet. `attempts/<run_id>.json` holds the last failed try.

A receipt of the same or a later attempt supersedes it: nothing depends on it being removed.
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
    """The last failed try at an upload."""

    noun, unreadable = "an attempt", AttemptUnreadable

    upload: UploadMessage  # the upload's message
    dataset: str
    error: str  # the class of the error, such as AwsUnavailable
    code: str  # the permanent name of the cause, in snake_case
    message: str  # what was wrong and what to do; it quotes no data
    transient: bool  # whether the same work may succeed when it is tried again
    receive_count: int = 1  # how often the message had been delivered
    memory_kills: int = 0  # how many tasks were killed for lack of memory while they refined this upload
    given_up: bool = False  # whether the message moved, or is about to move, to the dead-letter queue
    task_arn: str | None = None
    at: str  # when the try ended, ISO 8601, UTC
    sent_again_at: str | None = None  # when its message was sent again by hand since; None if it was not
    message_id: str | None = None  # its SQS message; a redriven message is another one

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
        """Describe a try that ended in `error`, now."""
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
        """Return the run that was tried."""
        return self.upload.run_id

    @property
    def reason(self) -> str:
        """Return why it failed, in one line."""
        return f"{self.error}: {' '.join(self.message.split())}"

    @property
    def moved_at(self) -> datetime:
        """Return when its message was last delivered or sent again."""
        return datetime.fromisoformat(self.sent_again_at or self.at)

    def is_superseded_by(self, receipt: Receipt | None) -> bool:
        """Return whether a receipt is the outcome of this attempt, or of a later one."""
        return receipt is not None and receipt.attempt >= self.upload.attempt

    def to_json(self) -> str:
        """Serialise for S3."""
        return self.model_dump_json(by_alias=True, indent=1)


class FoundAttempt(NamedTuple):
    """An attempt as it is stored; `stored` is None for one that is not there yet."""

    attempt: Attempt
    stored: StoredObject | None


def attempt_key(run_id: str) -> str:
    """Return the key of a run's attempt in the published bucket."""
    return f"{PREFIX}{run_id}.json"


def write_attempt(store: ObjectStore, attempt: Attempt) -> None:
    """Write an attempt over an earlier one of the same run."""
    store.put(attempt_key(attempt.run_id), attempt.to_json())


def find_attempt(store: ObjectStore, run_id: str) -> FoundAttempt | None:
    """Return the last failed try of a run as it is stored, or None. Raise AttemptUnreadable if it is not an attempt
    that this release reads."""
    stored = store.get(attempt_key(run_id))
    return FoundAttempt(Attempt.from_json(stored.body), stored) if stored else None


def read_attempt(store: ObjectStore, run_id: str) -> Attempt | None:
    """Return the last failed try of a run, or None. Raise AttemptUnreadable for one that this release does not read."""
    found = find_attempt(store, run_id)
    return found.attempt if found else None


def reopen_attempt(store: ObjectStore, found: FoundAttempt) -> None:
    """Say that an upload that was given up is tried again, unless another try ended since it was `found`. Tasks that
    were killed before count no longer: the person who sends the upload again has removed the cause."""
    changes = {"given_up": False, "memory_kills": 0, "sent_again_at": _now()}
    reopened = found.attempt.model_copy(update=changes)
    store.put_if_unchanged(attempt_key(reopened.run_id), reopened.to_json(), found.stored)


def remove_attempt(store: ObjectStore, run_id: str) -> None:
    """Remove the attempt of a run; one that does not exist is no error."""
    store.delete(attempt_key(run_id))


def runs_with_attempt(store: ObjectStore) -> Iterator[tuple[str, datetime]]:
    """Yield the ids of the runs that have an attempt, and when it was written."""
    for page in store.list_keys(PREFIX):
        yield from ((key.removeprefix(PREFIX).removesuffix(".json"), written) for key, written in page)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
