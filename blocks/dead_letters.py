"""Reads messages from the dead-letter queue, and sends some of them back to the upload queue."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.aws_errors import AwsUnavailable, explaining_aws_errors

_BATCH = 10  # SQS's limit for every batch call
_WAIT_SECONDS = 2  # a long poll queries all of SQS's servers
_HELD_SECONDS = 300


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message received from the dead-letter queue. SQS hides it from other readers for five minutes."""

    message_id: str
    receipt_handle: str
    body: str


class DeadLetters:
    """Reads the dead-letter queue, and sends its messages back to the queue that they came from.

    Args:
        sqs: a boto3 client for SQS.
    """

    def __init__(self, sqs: Any, dead_letter_queue_url: str, queue_url: str) -> None:
        self._sqs = sqs
        self._from, self._to = dead_letter_queue_url, queue_url

    def hold_all(self) -> Iterator[list[DeadLetter]]:
        """Yield all messages in batches of up to ten, each message once. SQS hides them from other readers for five
        minutes. Raise AwsUnavailable or AwsRefused if SQS cannot be read."""
        seen: set[str] = set()
        while True:
            with explaining_aws_errors(f"receiving from {self._from}"):
                answer = self._sqs.receive_message(
                    QueueUrl=self._from,
                    MaxNumberOfMessages=_BATCH,
                    WaitTimeSeconds=_WAIT_SECONDS,
                    VisibilityTimeout=_HELD_SECONDS,
                )
            batch = [
                DeadLetter(one["MessageId"], one["ReceiptHandle"], one["Body"]) for one in answer.get("Messages", [])
            ]
            new = [letter for letter in batch if letter.message_id not in seen]
            if not new:
                return
            seen.update(letter.message_id for letter in new)
            yield new

    def send_back(self, letters: Sequence[DeadLetter]) -> None:
        """Send messages to the queue that they came from, then delete them from the dead-letter queue. If the process
        ends between these steps, some messages are in both queues.

        Raises:
            AwsUnavailable, AwsRefused: a call failed. Messages that were not sent are still in the dead-letter queue.
        """
        for batch in _batches(letters):
            entries = [{"Id": str(number), "MessageBody": letter.body} for number, letter in enumerate(batch)]
            with explaining_aws_errors(f"sending to {self._to}"):
                _check(self._sqs.send_message_batch(QueueUrl=self._to, Entries=entries), self._to)
            with explaining_aws_errors(f"deleting from {self._from}"):
                handles = [
                    {"Id": str(number), "ReceiptHandle": letter.receipt_handle} for number, letter in enumerate(batch)
                ]
                _check(self._sqs.delete_message_batch(QueueUrl=self._from, Entries=handles), self._from)

    def release(self, letters: Sequence[DeadLetter]) -> None:
        """Make messages visible in the dead-letter queue immediately, instead of after five minutes."""
        for batch in _batches(letters):
            entries = [
                {"Id": str(number), "ReceiptHandle": letter.receipt_handle, "VisibilityTimeout": 0}
                for number, letter in enumerate(batch)
            ]
            with explaining_aws_errors(f"releasing messages of {self._from}"):
                self._sqs.change_message_visibility_batch(QueueUrl=self._from, Entries=entries)


def _batches(letters: Sequence[DeadLetter]) -> Iterable[Sequence[DeadLetter]]:
    return (letters[start : start + _BATCH] for start in range(0, len(letters), _BATCH))


def _check(answer: dict[str, Any], queue_url: str) -> None:
    """Raise AwsUnavailable if SQS rejected an entry of a batch."""
    if failed := answer.get("Failed"):
        raise AwsUnavailable(f"{queue_url} rejected {len(failed)} messages of a batch: {failed[0].get('Code')}")
