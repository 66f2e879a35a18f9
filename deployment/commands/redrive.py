"""`sluice redrive`: queues uploads that were given up, so that they are tried again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Console

from blocks.at_once import at_once
from blocks.aws_errors import explaining_aws_errors
from blocks.dead_letters import DeadLetter, DeadLetters
from deployment.commands import visible_line
from deployment.commands.show import print_unreadable
from deployment.commands.uploads import Uploads
from deployment.deployed_stack import DeployedStack, drains_of
from flows.pipeline.attempts import FoundAttempt, reopen_attempt
from flows.pipeline.commit import has_receipt
from flows.pipeline.errors import UploadCancelled
from flows.pipeline.run_ids import require_run_id
from flows.refinery.errors import TerminalError
from lambda_trigger.message import MessageUnreadable, UploadMessage

# A message whose last delivery failed moves to the dead-letter queue when it is received again, some minutes later.
_MOVED_WITHIN = timedelta(minutes=15)


class NothingToRedrive(TerminalError):
    """The upload of the requested run was not given up."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which uploads to redrive."""

    run_id: str | None = None  # only the run with this id, or whose id begins with this; None: all
    cancelled_too: bool = False  # whether to redrive also uploads that a person cancelled

    def __post_init__(self) -> None:
        if self.run_id is not None:
            require_run_id(self.run_id)

    def names(self, run_id: str) -> bool:
        """Return whether the choice includes a run."""
        return run_id.startswith(self.run_id or "")

    def refusal(self, attempt: FoundAttempt | None) -> str:
        """Return why an upload is not redriven; "" if it is. An upload that was requested by its run id always is."""
        is_cancelled = attempt is not None and attempt.attempt.code == UploadCancelled.code
        if is_cancelled and self.run_id is None and not self.cancelled_too:
            return "cancelled; --cancelled redrives it too"
        return ""


def redrive(console: Console, cloud: DeployedStack, choice: Choice) -> None:
    """Send uploads that were given up to the queue again, and start a drain, unless the stack is paused.

    Raises:
        NothingToRedrive: the upload of the requested run was not given up.
        AwsUnavailable, AwsRefused: a call failed; messages that were not sent are still in the dead-letter queue.
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
        raise NothingToRedrive(f"no upload of run {choice.run_id} was given up; see: sluice status")
    if not work.sent:
        console.print("Nothing to redrive.")
        return
    if uploads.is_paused():
        console.print(f"{work.sent:,} sent to the queue. The stack is paused; start a drain with: sluice resume")
        return
    drains_of(cloud).start()
    console.print(f"{work.sent:,} sent to the queue, and a drain was started. Follow with: sluice status")


class _Redrive:
    def __init__(self, console: Console, cloud: DeployedStack, uploads: Uploads, choice: Choice) -> None:
        self._console, self._uploads, self._choice = console, uploads, choice
        self._sqs, self._queue_url = cloud.client("sqs"), cloud.outputs["QueueUrl"]
        self._letters = DeadLetters(self._sqs, cloud.outputs["DeadLetterQueueUrl"], self._queue_url)
        self._bucket, self._prefix = cloud.outputs["LandingBucket"], cloud.outputs["IncomingPrefix"]
        self._there: set[str] = set()  # runs with a message in the dead-letter queue
        self.sent = self.left = 0

    def send_dead_letters(self) -> None:
        """Send the chosen messages in the dead-letter queue back to the queue."""
        left: list[DeadLetter] = []
        try:
            for batch in self._letters.hold_all():
                left += batch  # until it is sent
                chosen = self._chosen(batch)
                self._letters.send_back(list(chosen))
                left = [letter for letter in left if letter not in chosen]
                for upload, attempt in chosen.values():
                    self._note(upload, attempt)
        finally:
            self._letters.release(left)

    def _chosen(self, batch: Sequence[DeadLetter]) -> dict[DeadLetter, tuple[UploadMessage, FoundAttempt | None]]:
        uploads = {letter: upload for letter in batch if (upload := self._upload(letter))}
        self._there.update(upload.run_id for upload in uploads.values())
        attempts = at_once(self._uploads.find_attempt, [upload.run_id for upload in uploads.values()])
        found = {letter: (upload, attempt) for (letter, upload), attempt in zip(uploads.items(), attempts, strict=True)}
        return {letter: one for letter, one in found.items() if self._is_chosen(*one)}

    def _upload(self, letter: DeadLetter) -> UploadMessage | None:
        try:
            return UploadMessage.from_json(letter.body)
        except MessageUnreadable as error:
            self._uploads.unreadable[f"message {letter.message_id} in the dead-letter queue"] = str(error)
            return None

    def send_expired(self) -> None:
        """Send new messages for uploads that were given up and whose messages have expired in the dead-letter queue."""
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
            refusal = "not below the incoming prefix of the landing bucket; every task refuses it"
        if refusal:
            self.left += 1
            self._console.out(f"left   {upload.run_id[:8]}  {visible_line(upload.key)}  {refusal}")
        return not refusal

    def _note(self, upload: UploadMessage, attempt: FoundAttempt | None) -> None:
        self.sent += 1
        if attempt:
            reopen_attempt(self._uploads.store, attempt)
        reason = attempt.attempt.reason if attempt else "no task noted why it failed"
        self._console.out(f"sent   {upload.run_id[:8]}  {visible_line(upload.key)}  {reason}")
