"""Sends messages from the dead-letter queue back to the upload queue."""

from collections.abc import Iterator, Sequence
from typing import Any

from blocks.aws_errors import AwsUnavailable, explaining_aws_errors
from blocks.upload_queue import Problems, ReceivedMessage, UploadQueue

_WAIT_SECONDS = 2  # a long poll queries all of SQS's servers
_HELD_SECONDS = 300


class DeadLetters:
    """Receives messages from the dead-letter queue, and sends those that the caller chooses to the upload queue.

    Args:
        sqs: a boto3 client for SQS.
        queue_url: the upload queue.
    """

    def __init__(self, sqs: Any, dead_letter_queue_url: str, queue_url: str) -> None:
        self._sqs, self._to = sqs, queue_url
        self._letters = UploadQueue(dead_letter_queue_url, visibility_timeout_seconds=_HELD_SECONDS, client=sqs)

    def hold_all(self) -> Iterator[list[ReceivedMessage]]:
        """Yield all messages in batches of up to ten, each message once. SQS hides them from other readers for five
        minutes. Raise AwsUnavailable, AwsRefused or AwsCallInvalid if a call to SQS fails."""
        seen: set[str] = set()
        while letters := self._letters.receive(wait_seconds=_WAIT_SECONDS):
            new = [letter for letter in letters if letter.message_id not in seen]
            if not new:
                return
            seen.update(letter.message_id for letter in new)
            yield new

    def send_back(self, letters: Sequence[ReceivedMessage]) -> None:
        """Send messages of one batch to the upload queue, then delete them from the dead-letter queue. If the deletion
        fails or the process ends before it, the messages that were sent are in both queues.

        Raises:
            AwsUnavailable, AwsRefused, AwsCallInvalid, MessageLost: a call failed. Messages that were not sent are
                still in the dead-letter queue.
        """
        if not letters:
            return
        entries = [{"Id": str(number), "MessageBody": letter.body} for number, letter in enumerate(letters)]
        with explaining_aws_errors(f"sending to {self._to}"):
            answer = self._sqs.send_message_batch(QueueUrl=self._to, Entries=entries)
        if failed := answer.get("Failed"):
            raise AwsUnavailable(f"{self._to} rejected {len(failed)} messages of a batch: {failed[0].get('Code')}")
        for error in self._letters.acknowledge(letters).values():
            raise error

    def release(self) -> Problems:
        """Make the messages that were not sent back visible in the dead-letter queue immediately, instead of after five
        minutes. Return those for which that failed."""
        return self._letters.release(self._letters.held)
