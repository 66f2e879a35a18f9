"""`sluice redrive` returns uploads from the dead-letter queue to the queue, and lists the messages that it leaves."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from blocks import dead_letters
from blocks.aws_errors import AwsRefused
from blocks.upload_queue import Problems, ReceivedMessage, UploadQueue
from deployment.commands import SafeConsole
from deployment.commands.redrive import Choice, NothingToRedrive, redrive
from flows.pipeline.attempts import Attempt, find_attempt, read_attempt, write_attempt
from flows.pipeline.errors import OutOfMemory, UploadCancelled
from flows.refinery.errors import SluiceError
from lambda_trigger.message import UploadMessage
from lambda_trigger.pause import PAUSE_KEY
from tests.unit.deployment.commands.test_uploads import Stack, stack

__all__ = ["stack"]
_ALL = Choice()
_MACHINE = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}


@pytest.fixture
def dead(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Add a state machine to the stack, and make `redrive` not wait for more messages."""
    monkeypatch.setattr(dead_letters, "_WAIT_SECONDS", 0)  # moto delivers all messages together
    arn = boto3.client("stepfunctions").create_state_machine(
        name="drain", definition=json.dumps(_MACHINE), roleArn="arn:aws:iam::123456789012:role/machine"
    )["stateMachineArn"]
    stack.cloud.outputs.update({"StateMachineArn": arn, "WindowSeconds": "60"})
    return stack


def give_up(stack: Stack, name: str, error: SluiceError | None = None, *, is_in_queue: bool = True) -> UploadMessage:
    upload = stack.message(name)
    if is_in_queue:
        stack.queue(upload, "DeadLetterQueueUrl")
    if error is not None:
        attempt = Attempt.of(upload, error, dataset="orders", receive_count=5, task_arn=None, given_up=True)
        write_attempt(stack.uploads.store, attempt)
    return upload


def redriven(stack: Stack, choice: Choice = _ALL) -> str:
    printed = io.StringIO()
    redrive(SafeConsole(file=printed, soft_wrap=True, highlight=False), stack.cloud, choice)
    return printed.getvalue()


def messages(stack: Stack, queue: str = "QueueUrl") -> set[str]:
    """Return the run IDs of a queue's visible messages, or the body of a message that is not about an upload."""
    answer = boto3.client("sqs").receive_message(
        QueueUrl=stack.cloud.outputs[queue], MaxNumberOfMessages=10, VisibilityTimeout=0
    )
    bodies = [one["Body"] for one in answer.get("Messages", [])]
    return {UploadMessage.from_json(body).run_id if body.startswith("{") else body for body in bodies}


def drains(stack: Stack) -> list[str]:
    states = boto3.client("stepfunctions")
    listed = states.list_executions(stateMachineArn=stack.cloud.outputs["StateMachineArn"])["executions"]
    return [states.describe_execution(executionArn=one["executionArn"])["input"] for one in listed]


def test_every_upload_is_queued_again_and_is_no_longer_given_up(dead: Stack) -> None:
    uploads = [give_up(dead, f"{number}.csv", OutOfMemory("too small")) for number in range(12)]
    printed = redriven(dead)
    assert dead.uploads.queue_lengths() == (12, 0, 0)
    assert [json.loads(one) for one in drains(dead)] == [{"source": "upload"}]
    for upload in uploads:
        attempt = read_attempt(dead.uploads.store, upload.run_id)
        assert attempt is not None
        assert not attempt.given_up
        assert f"sent   {upload.run_id[:8]}" in printed
    assert "12 sent" in printed


def test_while_the_stack_is_paused_uploads_queue_up_and_no_drain_is_started(dead: Stack) -> None:
    upload = give_up(dead, "a.csv", OutOfMemory("too small"))
    dead.uploads.store.put(PAUSE_KEY, "{}")
    assert "sluice resume" in redriven(dead)
    assert (messages(dead), drains(dead)) == ({upload.run_id}, [])


def test_one_run_is_redriven_by_its_id_and_the_others_stay(dead: Stack) -> None:
    one, other = give_up(dead, "a.csv", OutOfMemory("a")), give_up(dead, "b.csv", OutOfMemory("b"))
    redriven(dead, Choice(one.run_id[:8]))
    assert messages(dead) == {one.run_id}
    assert messages(dead, "DeadLetterQueueUrl") == {other.run_id}
    attempt = read_attempt(dead.uploads.store, other.run_id)
    assert attempt is not None
    assert attempt.given_up


def test_messages_that_stay_hidden_because_they_cannot_be_released_are_counted(
    dead: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = give_up(dead, "a.csv", OutOfMemory("a")), give_up(dead, "b.csv", OutOfMemory("b"))

    def refuse(_: UploadQueue, messages: Iterable[ReceivedMessage], seconds: float) -> Problems:
        return dict.fromkeys(messages, AwsRefused("extending messages: AccessDenied"))

    monkeypatch.setattr(UploadQueue, "extend", refuse)
    printed = redriven(dead, Choice(one.run_id))
    assert "1 message in the dead-letter queue cannot be redriven" in printed
    assert "AccessDenied" in printed


@pytest.mark.parametrize(
    ("choice", "error", "is_sent"),
    [
        (Choice(), UploadCancelled("cancelled"), False),
        (Choice(cancelled_too=True), UploadCancelled("cancelled"), True),
    ],
)
def test_a_cancelled_upload_is_left_and_named_unless_it_is_requested(
    dead: Stack, choice: Choice, error: SluiceError, is_sent: bool
) -> None:
    upload = give_up(dead, "a.csv", error)
    printed = redriven(dead, choice)
    assert messages(dead) == ({upload.run_id} if is_sent else set())
    assert messages(dead, "DeadLetterQueueUrl") == (set() if is_sent else {upload.run_id})
    assert f"{'sent' if is_sent else 'left'}   {upload.run_id[:8]}" in printed


@pytest.mark.parametrize("fields", [{"bucket": "another"}, {"key": "receipts/a.json"}])
def test_a_message_that_names_no_upload_is_left_and_named(dead: Stack, fields: dict[str, Any]) -> None:
    message = replace(dead.message("a.csv"), **fields)
    dead.queue(message, "DeadLetterQueueUrl")
    assert f"left   {message.run_id[:8]}" in redriven(dead)
    assert f"left   {message.run_id[:8]}" in redriven(dead, Choice(message.run_id))
    assert messages(dead) == set()


def test_a_cancelled_upload_is_redriven_by_its_id(dead: Stack) -> None:
    upload = give_up(dead, "a.csv", UploadCancelled("cancelled"))
    redriven(dead, Choice(upload.run_id))
    assert messages(dead) == {upload.run_id}


def test_an_upload_that_no_task_wrote_a_reason_for_is_redriven(dead: Stack) -> None:
    upload = give_up(dead, "a.csv")
    assert upload.run_id[:8] in redriven(dead)
    assert messages(dead) == {upload.run_id}


def test_a_message_that_is_unreadable_is_named_and_stays(dead: Stack) -> None:
    boto3.client("sqs").send_message(QueueUrl=dead.cloud.outputs["DeadLetterQueueUrl"], MessageBody="no upload")
    upload = give_up(dead, "a.csv", OutOfMemory("too small"))
    assert "unreadable message" in redriven(dead)
    assert messages(dead) == {upload.run_id}
    assert messages(dead, "DeadLetterQueueUrl") == {"no upload"}


def test_an_upload_whose_message_has_expired_is_sent_from_its_attempt(dead: Stack) -> None:
    upload = give_up(dead, "a.csv", OutOfMemory("too small"), is_in_queue=False)
    assert "Nothing to redrive" in redriven(dead)  # because its message may be on its way to the dead-letter queue
    found = find_attempt(dead.uploads.store, upload.run_id)
    assert found is not None
    earlier = (datetime.now(UTC) - timedelta(days=15)).isoformat()
    write_attempt(dead.uploads.store, found.attempt.model_copy(update={"at": earlier}))
    redriven(dead)
    assert messages(dead) == {upload.run_id}


def test_without_anything_to_redrive_no_drain_is_started(dead: Stack) -> None:
    assert "Nothing to redrive" in redriven(dead)
    with pytest.raises(NothingToRedrive):
        redriven(dead, Choice("0" * 32))
    assert drains(dead) == []
