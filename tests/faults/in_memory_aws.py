"""S3 and SQS in memory. At every call, a worker can be paused or killed, or can get an error instead of the response.

Both services behave as AWS documents: conditional writes fail with 412, a read returns the last write, and messages
arrive in any order, several times, and again after their visibility timeout.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal

from botocore.exceptions import ClientError, ConnectionClosedError

from blocks.upload_queue import ReceivedMessage
from flows.pipeline.closing import Outlets
from lambda_trigger.message import UploadMessage

Fate = Literal["go", "die before", "die after", "lose the answer", "retry after a lost answer"]
"""The outcome of one call. boto3 repeats a call whose response was lost, unless it has no retries left."""

OUTLETS = Outlets(
    announce=lambda notices: frozenset(notice.run_id for notice in notices),
    record=lambda outcomes: frozenset(outcome.run_id for outcome in outcomes),
)
"""EventBridge and Prefect, which accept every report. A drain would repeat the others for a minute."""

_PATIENCE_SECONDS = 60


class Killed(BaseException):
    """The effect of SIGKILL: none of the worker's code runs afterwards. It is not an Exception, so that the worker does
    not catch it."""


class Stepper:
    """Runs a worker's function in a separate thread, one AWS call at a time."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._fate: Fate = "go"
        self._may_go, self._is_waiting = threading.Semaphore(0), threading.Semaphore(0)
        self.over = self.was_killed = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait()

    def step(self, fate: Fate) -> None:
        """Make the worker's pending call with the given fate, and run the worker until its next call or its end."""
        self._fate = fate
        self._may_go.release()
        self._wait()

    def call(self, do: Callable[[], Any]) -> Any:
        """Make one AWS call from the worker's thread, once the test allows it."""
        if self.was_killed:
            raise Killed  # this is Python's cleanup, which a killed process would not do
        self._is_waiting.release()
        self._may_go.acquire()
        fate = self._fate
        self.was_killed = fate in ("die before", "die after")
        if fate == "die before":
            raise Killed
        if fate == "retry after a lost answer":
            do()
        answer = do()
        if fate == "die after":
            raise Killed
        if fate == "lose the answer":
            raise ConnectionClosedError(endpoint_url="https://s3")
        return answer

    def _wait(self) -> None:
        assert self._is_waiting.acquire(timeout=_PATIENCE_SECONDS), "the worker hangs"

    def _run(self) -> None:
        _HERE.stepper = self
        try:
            self._work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 (the test checks it)
            self.error = error
        self.over = True
        self._is_waiting.release()


class _Here(threading.local):
    stepper: Stepper | None = None


_HERE = _Here()


def _through(do: Callable[[], Any]) -> Any:
    """Make an AWS call, directly in the test's thread, but step by step in a worker's thread."""
    stepper = _HERE.stepper
    return stepper.call(do) if stepper else do()


@dataclass(frozen=True)
class _Stored:
    body: bytes
    metadata: dict[str, str]

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'


@dataclass
class _Pages:
    """A paginator whose lists have a single page."""

    listing: Callable[[str], dict[str, Any]]

    def paginate(self, *, Prefix: str, **_: object) -> Iterator[dict[str, Any]]:  # noqa: N803 (boto3's name)
        yield dict(_through(lambda: self.listing(Prefix)))


@dataclass
class InMemoryS3:
    """The part of a boto3 S3 client that Sluice uses for its results, and the list of the uploads' versions.

    Attributes:
        uploads: every object version in the landing bucket, the oldest one first.
        objects: the objects in the published bucket, by key.
        pending: the unfinished multipart uploads by their ID, each with its key, metadata and parts.
        put: the keys in the published bucket in the order in which they were written.
        wrote: the workers that wrote an object, by its key. None means that the test itself wrote it.
    """

    uploads: list[UploadMessage] = field(default_factory=list)
    objects: dict[str, _Stored] = field(default_factory=dict)
    pending: dict[str, tuple[str, dict[str, str], list[bytes]]] = field(default_factory=dict)
    put: list[str] = field(default_factory=list)
    wrote: dict[str, list[Stepper | None]] = field(default_factory=dict)
    _uploads: Iterator[int] = field(default_factory=itertools.count)

    def put_object(
        self,
        *,
        Key: str,  # noqa: N803 (boto3's names)
        Body: bytes | BinaryIO,  # noqa: N803
        Metadata: dict[str, str],  # noqa: N803
        **conditions: Any,
    ) -> dict[str, Any]:
        body = Body if isinstance(Body, bytes) else Body.read()

        def do() -> dict[str, Any]:
            there = self.objects.get(Key)
            if conditions.get("IfNoneMatch") == "*" and there:
                raise _error("PreconditionFailed", 412)
            if "IfMatch" in conditions and (there is None or there.etag != conditions["IfMatch"]):
                raise _error("PreconditionFailed", 412)
            self._store(Key, _Stored(body, Metadata))
            return {}

        return dict(_through(do))

    def create_multipart_upload(self, *, Key: str, Metadata: dict[str, str], **_: str) -> dict[str, Any]:  # noqa: N803
        def do() -> dict[str, Any]:
            name = f"upload-{next(self._uploads)}"
            self.pending[name] = (Key, Metadata, [])
            return {"UploadId": name}

        return dict(_through(do))

    def upload_part(self, *, UploadId: str, Body: BinaryIO, **_: Any) -> dict[str, Any]:  # noqa: N803
        self.pending[UploadId][2].append(Body.read())
        return {"ETag": "e"}

    def complete_multipart_upload(self, *, UploadId: str, **_: Any) -> None:  # noqa: N803
        def do() -> None:
            if UploadId not in self.pending:
                raise _error("NoSuchUpload", 404)
            key, metadata, parts = self.pending.pop(UploadId)
            self._store(key, _Stored(b"".join(parts), metadata))

        _through(do)

    def abort_multipart_upload(self, *, UploadId: str, **_: str) -> None:  # noqa: N803
        _through(lambda: self.pending.pop(UploadId, None))

    def get_object(self, *, Key: str, **_: str) -> dict[str, Any]:  # noqa: N803
        def do() -> dict[str, Any]:
            stored = self._stored(Key, "NoSuchKey")
            return {"Body": io.BytesIO(stored.body), "ETag": stored.etag}

        return dict(_through(do))

    def head_object(self, *, Key: str, **_: str) -> dict[str, Any]:  # noqa: N803
        return dict(_through(lambda: {"Metadata": self._stored(Key, "404").metadata}))

    def delete_object(self, *, Key: str, **_: str) -> None:  # noqa: N803
        _through(lambda: self.objects.pop(Key, None))

    def get_paginator(self, operation: str) -> _Pages:
        """Return a paginator for one of the two list operations."""
        listing = {"list_object_versions": self._list_versions, "list_objects_v2": self._list_objects}[operation]
        return _Pages(listing)

    def _list_objects(self, prefix: str) -> dict[str, Any]:
        written = datetime(2026, 1, 1, tzinfo=UTC)
        found = ((key, self.objects[key]) for key in self.keys(prefix))
        return {
            "Contents": [
                {"Key": key, "LastModified": written, "ETag": each.etag, "Size": len(each.body)} for key, each in found
            ]
        }

    def _list_versions(self, prefix: str) -> dict[str, Any]:
        """Return the versions of a key, the newest one first."""
        return {"Versions": [_listed(each) for each in reversed(self.uploads) if each.key == prefix]}

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that start with `prefix`."""
        return sorted(key for key in self.objects if key.startswith(prefix))

    def _store(self, key: str, stored: _Stored) -> None:
        self.objects[key] = stored
        self.put.append(key)
        self.wrote.setdefault(key, []).append(_HERE.stepper)

    def _stored(self, key: str, code: str) -> _Stored:
        if key not in self.objects:
            raise _error(code, 404)
        return self.objects[key]


def _listed(upload: UploadMessage) -> dict[str, Any]:
    return {
        "Key": upload.key,
        "VersionId": upload.version_id,
        "ETag": upload.etag,
        "Size": upload.size_bytes,
        "LastModified": datetime(2026, 1, 1, tzinfo=UTC),
    }


def _error(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "Call",
    )


@dataclass
class Message:
    """A message in the queue."""

    message_id: str
    body: str
    deliveries: int = 0
    visible: bool = True


class InMemorySqs:
    """The part of a boto3 SQS client that a task uses for a message that it has received. The test decides which
    message is delivered when, and when a visibility timeout expires."""

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}
        self._numbers = itertools.count()
        self._watchers: list[Callable[[Message], None]] = []

    def watch_deletions(self, look: Callable[[Message], None]) -> None:
        """Call `look` with each message before it is deleted."""
        self._watchers.append(look)

    def send(self, body: str) -> None:
        """Put a message into the queue."""
        message = Message(f"message-{next(self._numbers)}", body)
        self._messages[message.message_id] = message

    def messages(self, *, visible: bool) -> list[Message]:
        """Return the messages that are visible, or those that are in flight."""
        return [message for message in self._messages.values() if message.visible == visible]

    def deliver(self, message: Message) -> ReceivedMessage:
        """Deliver a message, as if a task had received it."""
        message.visible = False
        message.deliveries += 1
        handle = f"{message.message_id} {message.deliveries}"
        return ReceivedMessage(message.message_id, handle, message.body, message.deliveries)

    def change_message_visibility_batch(self, *, Entries: list[dict[str, Any]], **_: str) -> dict[str, Any]:  # noqa: N803
        def change(entry: dict[str, Any]) -> bool:
            message = self._messages.get(entry["ReceiptHandle"].split()[0])
            if message is None or f"{message.message_id} {message.deliveries}" != entry["ReceiptHandle"]:
                return False
            message.visible = entry["VisibilityTimeout"] == 0
            return True

        return _for_each(Entries, change)

    def delete_message_batch(self, *, Entries: list[dict[str, Any]], **_: str) -> dict[str, Any]:  # noqa: N803
        def delete(entry: dict[str, Any]) -> bool:
            # The handle of an earlier delivery also deletes a message, as SQS documents for standard queues.
            message = self._messages.get(entry["ReceiptHandle"].split()[0])
            if message:
                for look in self._watchers:
                    look(message)
                del self._messages[message.message_id]
            return True

        return _for_each(Entries, delete)


def _for_each(entries: list[dict[str, Any]], do: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Respond to a batch operation, which counts as a single call."""

    def call() -> dict[str, Any]:
        failed = [entry["Id"] for entry in entries if not do(entry)]
        return {"Failed": [{"Id": name, "Code": "ReceiptHandleIsInvalid", "Message": ""} for name in failed]}

    return dict(_through(call))
