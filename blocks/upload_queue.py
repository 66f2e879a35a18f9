"""Receives messages from the upload queue, keeps them invisible, and returns, deletes or dead-letters them.

Each call to SQS covers up to ten messages, except those that move a message to the dead-letter queue.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from threading import RLock
from typing import Any

from botocore.exceptions import ClientError

from blocks.aws import client_of
from blocks.aws_errors import explain_aws_error, explaining_aws_errors
from blocks.limits import MAX_MESSAGE_SECONDS
from blocks.repeating import repeating
from flows.refinery.errors import SluiceError, TransientError

# SQS's error codes for an expired receipt handle: docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
_HANDLE_EXPIRED = frozenset(
    {
        "ReceiptHandleIsInvalid",
        "InvalidParameterValue",
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
    }
)
MAX_MESSAGES = 10  # the maximum number that one call to SQS can receive or change


class MessageLost(TransientError):
    """The message's visibility timeout ended while this worker held it: another worker may have received it."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One delivery of a message; `receive_count` counts the deliveries of the message, including this one."""

    message_id: str
    receipt_handle: str
    body: str
    receive_count: int


Problems = dict[ReceivedMessage, SluiceError]
"""The messages for which a call failed, each with its error; MessageLost if the message is no longer held."""


class UploadQueue:
    """An SQS queue with one message per upload.

    It remembers which messages are held, that is, were received and not returned, deleted or lost since. `receive` and
    `count_waiting` raise AwsUnavailable, AwsRefused or AwsCallInvalid if a call to SQS fails. The methods that take
    messages return those for which a call failed, instead of raising these errors.

    Args:
        dead_letter_queue_url: where `give_up` sends messages.
        visibility_timeout_seconds: how long a received message stays invisible; at most MAX_MESSAGE_SECONDS.
        client: a boto3 client for SQS. If it is None, a client with this process's credentials is created when needed.
    """

    def __init__(
        self,
        queue_url: str,
        *,
        dead_letter_queue_url: str = "",
        visibility_timeout_seconds: float = 120,
        client: Any = None,
    ) -> None:
        self.queue_url = queue_url
        self.dead_letter_queue_url = dead_letter_queue_url
        self.visibility_timeout_seconds = visibility_timeout_seconds
        self._client = client
        self._held: dict[str, ReceivedMessage] = {}
        self._changing = RLock()  # a message must not be extended after it was returned

    @cached_property
    def _sqs(self) -> Any:
        return self._client or client_of("sqs")

    @property
    def held(self) -> list[ReceivedMessage]:
        """Return the messages that were received and not returned, deleted or lost since."""
        return list(self._held.values())

    def receive(self, *, wait_seconds: int) -> list[ReceivedMessage]:
        """Receive up to ten messages. Return an empty list if none arrives within `wait_seconds` (at most 20)."""
        with explaining_aws_errors(f"receiving from {self.queue_url}"):
            response = self._sqs.receive_message(
                QueueUrl=self.queue_url,
                MaxNumberOfMessages=MAX_MESSAGES,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=int(self.visibility_timeout_seconds),
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
        received = [
            ReceivedMessage(
                message_id=message["MessageId"],
                receipt_handle=message["ReceiptHandle"],
                body=message["Body"],
                receive_count=int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for message in response.get("Messages", [])
        ]
        self._held.update((message.receipt_handle, message) for message in received)
        return received

    def count_waiting(self) -> int:
        """Return approximately how many messages are visible. SQS's number may be a minute old."""
        with explaining_aws_errors(f"counting the messages of {self.queue_url}"):
            response = self._sqs.get_queue_attributes(
                QueueUrl=self.queue_url, AttributeNames=["ApproximateNumberOfMessages"]
            )
        return int(response["Attributes"]["ApproximateNumberOfMessages"])

    def extend(self, messages: Iterable[ReceivedMessage], seconds: float) -> Problems:
        """Keep messages invisible for `seconds` from now. If `seconds` is 0, they become visible immediately."""
        return self._for_each(
            "change_message_visibility_batch", messages, "extending messages", VisibilityTimeout=int(seconds)
        )

    def release(self, messages: Iterable[ReceivedMessage], *, after_seconds: int = 0) -> Problems:
        """Return messages to the queue. They can be delivered again after `after_seconds`."""
        messages = list(messages)
        with self._changing:
            self._let_go(messages)
            return self.extend(messages, min(after_seconds, MAX_MESSAGE_SECONDS))

    def acknowledge(self, messages: Iterable[ReceivedMessage]) -> Problems:
        """Delete messages. A message that cannot be deleted will be delivered again."""
        messages = list(messages)
        self._let_go(messages)
        return self._for_each("delete_message_batch", messages, "deleting messages")

    def give_up(self, messages: Iterable[ReceivedMessage]) -> Problems:
        """Move messages to the dead-letter queue. Messages that cannot be moved are still held."""
        problems: Problems = {}
        for message in messages:
            try:
                with explaining_aws_errors(f"moving message {message.message_id} to the dead-letter queue"):
                    self._sqs.send_message(QueueUrl=self.dead_letter_queue_url, MessageBody=message.body)
            except SluiceError as error:
                problems[message] = error
            else:
                self.acknowledge([message])  # if this fails, the message is delivered again, and moved again
        return problems

    @contextmanager
    def keep_invisible(self, also: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Keep all held messages invisible while the block runs, by extending their visibility timeouts in a thread.

        If a message is lost, the block continues, because the receipt decides whose result is used.

        Args:
            also: called after each extension, in that thread.
        """
        # Extend every third of the timeout, so that one failed extension does not make the messages visible.
        third = self.visibility_timeout_seconds / 3
        with repeating(partial(self._beat, also), third, "visibility-heartbeat", end_seconds=1):
            yield

    def _beat(self, also: Callable[[], object]) -> None:
        with suppress(Exception):  # the next extension makes up for one that fails
            with self._changing:
                problems = self.extend(self.held, self.visibility_timeout_seconds)
                self._let_go(message for message, error in problems.items() if isinstance(error, MessageLost))
            also()

    def _let_go(self, messages: Iterable[ReceivedMessage]) -> None:
        for message in messages:
            self._held.pop(message.receipt_handle, None)

    def _for_each(self, operation: str, messages: Iterable[ReceivedMessage], doing: str, **fields: Any) -> Problems:
        """Call a batch operation with one entry per message, ten at a time. Return the messages for which it failed."""
        problems: Problems = {}
        for batch in _batches(list(messages)):
            entries = [
                {"Id": str(place), "ReceiptHandle": message.receipt_handle, **fields}
                for place, message in enumerate(batch)
            ]
            try:
                with explaining_aws_errors(doing):
                    answer = getattr(self._sqs, operation)(QueueUrl=self.queue_url, Entries=entries)
            except SluiceError as error:
                problems.update(dict.fromkeys(batch, error))
                continue
            for entry in answer.get("Failed", []):
                problems[batch[int(entry["Id"])]] = _problem_of(entry, operation, doing)
        return problems


def count_messages(sqs: Any, queue_url: str) -> tuple[int, int]:
    """Return approximately how many messages of a queue are waiting, including delayed ones, and how many are being
    processed. SQS's numbers may be a minute old."""
    number = "ApproximateNumberOfMessages"
    names = (number, f"{number}Delayed", f"{number}NotVisible")
    with explaining_aws_errors(f"counting the messages of {queue_url}"):
        counts = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=list(names))["Attributes"]
    visible, delayed, not_visible = (int(counts.get(name, 0)) for name in names)
    return visible + delayed, not_visible


def by_reason(problems: Problems) -> dict[str, list[ReceivedMessage]]:
    """Group the messages for which a call failed by their error."""
    reasons: dict[str, list[ReceivedMessage]] = defaultdict(list)
    for message, error in problems.items():
        reasons[f"{type(error).__name__}: {error}"].append(message)
    return reasons


def _problem_of(entry: dict[str, Any], operation: str, doing: str) -> SluiceError:
    if entry.get("Code") in _HANDLE_EXPIRED:
        return MessageLost("the message is no longer held by this worker")
    refusal: Any = {"Error": {"Code": entry.get("Code", ""), "Message": entry.get("Message", "")}}
    return explain_aws_error(ClientError(refusal, operation), doing)


def _batches(messages: Sequence[ReceivedMessage]) -> Iterator[Sequence[ReceivedMessage]]:
    for start in range(0, len(messages), MAX_MESSAGES):
        yield messages[start : start + MAX_MESSAGES]
