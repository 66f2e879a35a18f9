"""The queue of uploads: receive, keep invisible, return, acknowledge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Event, Thread
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blocks.aws import client_of
from blocks.aws_errors import aws_error_code, explain_aws_error, explaining_aws_errors
from flows.refinery.errors import TransientError

# What SQS calls an expired receipt handle: docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
_HANDLE_EXPIRED = frozenset(
    {
        "ReceiptHandleIsInvalid",
        "InvalidParameterValue",
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
    }
)
MAX_VISIBILITY_SECONDS = 43_200  # SQS: twelve hours from the receive, however often it is extended


class MessageLost(TransientError):
    """The message's visibility ran out while it was held: another worker may have it by now."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One delivery of a message; `receive_count` is how often SQS has delivered it, including this time."""

    message_id: str
    receipt_handle: str
    body: str
    receive_count: int


class UploadQueue:
    """The SQS queue with one message per upload.

    Every method raises AwsUnavailable, AwsRefused or AwsCallInvalid when SQS does not do what was requested.
    """

    def __init__(self, queue_url: str, *, visibility_timeout_seconds: float = 120) -> None:
        """Args:
        visibility_timeout_seconds: how long a received message stays invisible; at most MAX_VISIBILITY_SECONDS.
        """
        self.queue_url = queue_url
        self.visibility_timeout_seconds = visibility_timeout_seconds

    @cached_property
    def _sqs(self) -> Any:
        return client_of("sqs")

    def receive(self, *, wait_seconds: int) -> ReceivedMessage | None:
        """Return the next message, or None when none arrived within `wait_seconds` (at most 20)."""
        with explaining_aws_errors(f"receiving from {self.queue_url}"):
            response = self._sqs.receive_message(
                QueueUrl=self.queue_url,
                MaxNumberOfMessages=1,  # a message that waits for its turn would use up its visibility timeout
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=int(self.visibility_timeout_seconds),
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
        for message in response.get("Messages", []):
            return ReceivedMessage(
                message_id=message["MessageId"],
                receipt_handle=message["ReceiptHandle"],
                body=message["Body"],
                receive_count=int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
        return None

    def extend(self, message: ReceivedMessage, seconds: float) -> None:
        """Keep the message invisible for `seconds` from now; 0 returns it. Raise MessageLost when it is too late."""
        try:
            self._sqs.change_message_visibility(
                QueueUrl=self.queue_url, ReceiptHandle=message.receipt_handle, VisibilityTimeout=int(seconds)
            )
        except (BotoCoreError, ClientError) as error:
            if aws_error_code(error) in _HANDLE_EXPIRED:
                raise MessageLost(f"message {message.message_id} is no longer held by this worker") from error
            raise explain_aws_error(error, f"extending message {message.message_id}") from error

    def release(self, message: ReceivedMessage, *, after_seconds: int = 0) -> None:
        """Return the message to the queue, to be delivered again after `after_seconds`."""
        self.extend(message, min(after_seconds, MAX_VISIBILITY_SECONDS))

    def acknowledge(self, message: ReceivedMessage) -> None:
        """Delete the message. Raise MessageLost when the handle has expired: SQS delivers the message again."""
        try:
            self._sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message.receipt_handle)
        except (BotoCoreError, ClientError) as error:
            if aws_error_code(error) in _HANDLE_EXPIRED:
                raise MessageLost(f"message {message.message_id} is no longer held by this worker") from error
            raise explain_aws_error(error, f"deleting message {message.message_id}") from error

    @contextmanager
    def keep_invisible(self, message: ReceivedMessage) -> Iterator[None]:
        """Keep the message invisible while the block runs, by a heartbeat in another thread.

        If the message is lost, the work continues: the receipt decides whose result counts.
        """
        done = Event()
        beat = Thread(target=self._beat, args=(message, done), name="visibility-heartbeat", daemon=True)
        beat.start()
        try:
            yield
        finally:
            done.set()
            beat.join()

    def _beat(self, message: ReceivedMessage, done: Event) -> None:
        # A third of the timeout: two beats may fail before the message becomes visible.
        while not done.wait(self.visibility_timeout_seconds / 3):
            try:
                self.extend(message, self.visibility_timeout_seconds)
            except MessageLost:
                return
            except Exception:  # noqa: BLE001, S112 (the next beat makes up for one that fails)
                continue
