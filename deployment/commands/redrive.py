"""`sluice redrive`: sends the uploads that Sluice gave up on back to the queue, so that they are tried again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Console

from blocks.at_once import at_once
from blocks.aws_errors import explaining_aws_errors
from blocks.dead_letters import DeadLetters
from blocks.upload_queue import ReceivedMessage, by_reason
from deployment.commands import visible_line
from deployment.commands.show import print_unreadable
from deployment.commands.uploads import Uploads
from deployment.deployed_stack import DeployedStack, drains_of
from flows.pipeline.attempts import FoundAttempt, reopen_attempt
from flows.pipeline.commit import has_receipt
from flows.pipeline.errors import UploadCancelled
from flows.pipeline.run_ids import require_run_id
from flows.refinery.errors import TerminalError
from flows.refinery.words import counted
from lambda_trigger.message import MessageUnreadable, UploadMessage

# After its last delivery fails, a message is in the queue for some minutes: SQS moves it to the dead-letter queue only
# when a task tries to receive it again.
_MOVED_WITHIN = timedelta(minutes=15)


class NothingToRedrive(TerminalError):
    """Sluice has not given up on the requested run, so there is nothing to send back to the queue."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Selects the uploads to redrive."""

    run_id: str | None = None  # the ID of the only run to redrive, or its beginning; None for all runs
    cancelled_too: bool = False  # whether to also redrive uploads that were cancelled in Prefect

    def __post_init__(self) -> None:
        if self.run_id is not None:
            require_run_id(self.run_id)

    def names(self, run_id: str) -> bool:
        """Return whether this run was requested by its ID, or no run was."""
        return run_id.startswith(self.run_id or "")

    def refusal(self, attempt: FoundAttempt | None) -> str:
        """Return why an upload is not redriven, or "" if it is. Only cancelled uploads are refused, unless
        `cancelled_too` is set or the upload was requested by its run ID."""
        is_cancelled = attempt is not None and attempt.attempt.code == UploadCancelled.code
        if is_cancelled and self.run_id is None and not self.cancelled_too:
            return "cancelled; --cancelled redrives it too"
        return ""


def redrive(console: Console, cloud: DeployedStack, choice: Choice) -> None:
    """Send the uploads that Sluice gave up on back to the queue and, unless the stack is paused, start a drain.

    Raises:
        NothingToRedrive: Sluice has not given up on the requested run.
        AwsUnavailable, AwsRefused: an AWS call failed; messages that were not sent are still in the dead-letter queue.
    """
    uploads = Uploads(cloud)
    work = _Redrive(console, cloud, uploads, choice)
    work.send_dead_letters()
    work.send_expired()
    print_unreadable(console, uploads)
    if not work.sent and work.left:
        console.print("Nothing was sent to the queue.")
        return
    if not work.sent and choice.run_id is not None:
        raise NothingToRedrive(f"Sluice has not given up on run {choice.run_id}; see: sluice status")
    if not work.sent:
        console.print("Nothing to redrive.")
        return
    if uploads.is_paused():
        console.print(f"{work.sent:,} sent to the queue. The stack is paused; to process them: sluice resume")
        return
    drains_of(cloud).start()
    console.print(f"{work.sent:,} sent to the queue, and a drain was started. To see the progress: sluice status")


class _Redrive:
    def __init__(self, console: Console, cloud: DeployedStack, uploads: Uploads, choice: Choice) -> None:
        self._console, self._uploads, self._choice = console, uploads, choice
        self._sqs, self._queue_url = cloud.client("sqs"), cloud.outputs["QueueUrl"]
        self._letters = DeadLetters(self._sqs, cloud.outputs["DeadLetterQueueUrl"], self._queue_url)
        self._bucket, self._prefix = cloud.outputs["LandingBucket"], cloud.outputs["IncomingPrefix"]
        self._there: set[str] = set()  # runs with a message in the dead-letter queue
        self.sent = self.left = 0

    def send_dead_letters(self) -> None:
        """Move the chosen messages from the dead-letter queue back to the queue."""
        try:
            for batch in self._letters.hold_all():
                chosen = self._chosen(batch)
                self._letters.send_back(list(chosen))
                for upload, attempt in chosen.values():
                    self._note(upload, attempt)
        finally:
            for error, letters in by_reason(self._letters.release()).items():
                self._console.out(
                    f"{counted(len(letters), 'message')} in the dead-letter queue cannot be redriven for up to five"
                    f" minutes, because making them visible failed: {error}"
                )

    def _chosen(
        self, batch: Sequence[ReceivedMessage]
    ) -> dict[ReceivedMessage, tuple[UploadMessage, FoundAttempt | None]]:
        uploads = {letter: upload for letter in batch if (upload := self._upload(letter))}
        self._there.update(upload.run_id for upload in uploads.values())
        attempts = at_once(self._uploads.find_attempt, [upload.run_id for upload in uploads.values()])
        found = {letter: (upload, attempt) for (letter, upload), attempt in zip(uploads.items(), attempts, strict=True)}
        return {letter: one for letter, one in found.items() if self._is_chosen(*one)}

    def _upload(self, letter: ReceivedMessage) -> UploadMessage | None:
        try:
            return UploadMessage.from_json(letter.body)
        except MessageUnreadable as error:
            self._uploads.unreadable[f"message {letter.message_id} in the dead-letter queue"] = str(error)
            return None

    def send_expired(self) -> None:
        """Send new messages for failed uploads whose messages have expired in the dead-letter queue."""
        moved = datetime.now(UTC) - _MOVED_WITHIN
        tried = [run for run in self._uploads.runs_with_attempt() if run not in self._there and self._choice.names(run)]
        for found in list(filter(None, at_once(self._uploads.find_attempt, tried))):
            if not found.attempt.given_up or found.attempt.moved_at > moved:
                continue
            upload = found.attempt.upload
            if not has_receipt(self._uploads.store, upload.run_id) and self._is_chosen(upload, found):
                with explaining_aws_errors(f"sending to {self._queue_url}"):
                    self._sqs.send_message(QueueUrl=self._queue_url, MessageBody=upload.to_json())
                self._note(upload, found)

    def _is_chosen(self, upload: UploadMessage, attempt: FoundAttempt | None) -> bool:
        if not self._choice.names(upload.run_id):
            return False
        refusal = self._choice.refusal(attempt)
        if (upload.bucket, upload.key[: len(self._prefix)]) != (self._bucket, self._prefix):
            refusal = "not below the landing bucket's incoming prefix, so every task would reject it"
        if refusal:
            self.left += 1
            self._console.out(f"left   {upload.run_id[:8]}  {visible_line(upload.key)}  {refusal}")
        return not refusal

    def _note(self, upload: UploadMessage, attempt: FoundAttempt | None) -> None:
        self.sent += 1
        if attempt:
            reopen_attempt(self._uploads.store, attempt)
        reason = attempt.attempt.reason if attempt else "no task recorded why it failed"
        self._console.out(f"sent   {upload.run_id[:8]}  {visible_line(upload.key)}  {reason}")
