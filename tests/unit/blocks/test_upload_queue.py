"""Messages stay invisible while a task works on them, and are deleted only when their uploads are done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from threading import Event

import boto3
import pytest
from botocore.exceptions import ClientError

from blocks.aws_errors import AwsRefused
from blocks.upload_queue import MessageLost, Problems, ReceivedMessage, UploadQueue, by_reason


def send(queue: UploadQueue, *bodies: str) -> None:
    for body in bodies or ("body",):
        boto3.client("sqs").send_message(QueueUrl=queue.queue_url, MessageBody=body)


def receive(queue: UploadQueue) -> ReceivedMessage:
    (message,) = queue.receive(wait_seconds=0)
    return message


def test_receiving_from_an_empty_queue_returns_nothing(queue: UploadQueue) -> None:
    assert queue.receive(wait_seconds=0) == []


def test_up_to_ten_messages_are_received_together_and_become_invisible(queue: UploadQueue) -> None:
    send(queue, *map(str, range(12)))
    assert queue.count_waiting() == 12
    assert [len(queue.receive(wait_seconds=0)) for _ in range(3)] == [10, 2, 0]
    assert len(queue.held) == 12
    assert queue.count_waiting() == 0


def test_a_released_message_is_received_again_with_a_higher_receive_count(queue: UploadQueue) -> None:
    send(queue)
    assert queue.release([receive(queue)]) == {}
    assert queue.held == []
    assert receive(queue).receive_count == 2


def test_more_messages_than_fit_into_one_call_are_all_released(queue: UploadQueue) -> None:
    send(queue, *map(str, range(12)))
    messages = [message for _ in range(2) for message in queue.receive(wait_seconds=0)]
    assert queue.release(messages) == {}
    assert queue.count_waiting() == 12


def test_an_acknowledged_message_is_not_received_again(queue: UploadQueue) -> None:
    send(queue)
    queue.release([receive(queue)])
    assert queue.acknowledge([receive(queue)]) == {}
    assert queue.receive(wait_seconds=0) == queue.held == []


def test_a_message_that_was_given_up_is_in_the_dead_letter_queue(queue: UploadQueue) -> None:
    queue.dead_letter_queue_url = boto3.client("sqs").create_queue(QueueName="dead")["QueueUrl"]
    send(queue)
    assert queue.give_up([receive(queue)]) == {}
    assert queue.receive(wait_seconds=0) == queue.held == []
    assert receive(UploadQueue(queue.dead_letter_queue_url)).body == "body"


def test_a_message_that_cannot_be_given_up_is_still_held(queue: UploadQueue) -> None:
    queue.dead_letter_queue_url = queue.queue_url + "-that-is-not-there"
    send(queue)
    message = receive(queue)
    assert list(queue.give_up([message])) == queue.held == [message]


def test_extending_messages_reports_only_a_deleted_one_as_lost(queue: UploadQueue) -> None:
    send(queue, "a", "b")
    gone, kept = queue.receive(wait_seconds=0)
    queue.acknowledge([gone])
    problems = queue.extend([gone, kept], 30)
    assert {message: type(error) for message, error in problems.items()} == {gone: MessageLost}


def test_a_denied_call_is_reported_for_each_message_and_raises_nothing(
    queue: UploadQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(queue, "a", "b")
    messages = queue.receive(wait_seconds=0)

    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "DeleteMessageBatch")

    monkeypatch.setattr(queue._sqs, "delete_message_batch", refuse)
    problems = queue.acknowledge(messages)
    assert {type(error) for error in problems.values()} == {AwsRefused}
    assert [len(together) for together in by_reason(problems).values()] == [2]


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "AWS.SimpleQueueService.MessageNotInflight"])
def test_each_sqs_error_for_a_message_that_is_not_in_flight_means_that_it_is_lost(
    queue: UploadQueue, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    send(queue)
    message = receive(queue)
    answer = {"Failed": [{"Id": "0", "Code": code, "Message": ""}]}
    monkeypatch.setattr(queue._sqs, "change_message_visibility_batch", lambda **_: answer)
    assert isinstance(queue.extend([message], 30)[message], MessageLost)


def test_the_heartbeat_keeps_extending_held_messages_during_the_work(
    queue: UploadQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(queue)
    quick = UploadQueue(queue.queue_url, visibility_timeout_seconds=1)
    message = receive(quick)
    quick.visibility_timeout_seconds = 0.03  # so that the next heartbeat follows within milliseconds
    beats: list[list[ReceivedMessage]] = []
    touched, twice = [], Event()

    def extend(_self: UploadQueue, messages: Iterable[ReceivedMessage], _seconds: float) -> Problems:
        beats.append(list(messages))
        if len(beats) == 2:
            twice.set()
        return {}

    monkeypatch.setattr(UploadQueue, "extend", extend)
    with quick.keep_invisible(lambda: touched.append(True)):
        assert twice.wait(timeout=10)
    assert beats[:2] == [[message], [message]]
    assert touched


def test_the_heartbeat_drops_a_lost_message(queue: UploadQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    send(queue)
    quick = UploadQueue(queue.queue_url, visibility_timeout_seconds=1)
    message = receive(quick)
    quick.visibility_timeout_seconds = 0.03
    monkeypatch.setattr(UploadQueue, "extend", lambda *_: {message: MessageLost("gone")})
    with quick.keep_invisible():
        deadline = time.monotonic() + 10
        while quick.held and time.monotonic() < deadline:
            time.sleep(0.01)
    assert quick.held == []
    assert "visibility-heartbeat" not in {thread.name for thread in threading.enumerate()}
