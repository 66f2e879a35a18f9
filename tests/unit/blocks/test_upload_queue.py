"""A message stays invisible while it is processed, and is deleted only when its upload is done."""

from __future__ import annotations

import threading
import time
from threading import Event

import boto3
import pytest
from botocore.exceptions import ClientError

from blocks.upload_queue import MessageLost, ReceivedMessage, UploadQueue


def send(queue: UploadQueue, body: str = "body") -> None:
    boto3.client("sqs").send_message(QueueUrl=queue.queue_url, MessageBody=body)


def receive(queue: UploadQueue) -> ReceivedMessage:
    message = queue.receive(wait_seconds=0)
    assert message is not None
    return message


def test_an_empty_queue_gives_nothing(queue: UploadQueue) -> None:
    assert queue.receive(wait_seconds=0) is None


def test_a_received_message_is_invisible_to_others(queue: UploadQueue) -> None:
    send(queue)
    assert receive(queue).body == "body"
    assert queue.receive(wait_seconds=0) is None


def test_a_released_message_comes_again_and_says_how_often(queue: UploadQueue) -> None:
    send(queue)
    queue.release(receive(queue))
    assert receive(queue).receive_count == 2


def test_an_acknowledged_message_never_comes_again(queue: UploadQueue) -> None:
    send(queue)
    message = receive(queue)
    queue.release(message)
    queue.acknowledge(receive(queue))
    assert queue.receive(wait_seconds=0) is None


def test_extending_a_message_that_is_visible_again_says_that_it_is_lost(queue: UploadQueue) -> None:
    send(queue)
    message = receive(queue)
    queue.acknowledge(message)
    with pytest.raises(MessageLost):
        queue.extend(message, 30)


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "AWS.SimpleQueueService.MessageNotInflight"])
def test_every_way_in_which_sqs_says_that_a_message_is_not_held_means_that_it_is_lost(
    queue: UploadQueue, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    send(queue)
    message = receive(queue)

    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": ""}}, "ChangeMessageVisibility")

    monkeypatch.setattr(queue._sqs, "change_message_visibility", refuse)
    with pytest.raises(MessageLost):
        queue.extend(message, 30)


def test_the_heartbeat_keeps_extending_while_the_work_goes_on(
    queue: UploadQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(queue)
    message = receive(queue)
    beats, twice = [], Event()

    def extend(_self: UploadQueue, _message: ReceivedMessage, seconds: float) -> None:
        beats.append(seconds)
        if len(beats) == 2:
            twice.set()

    monkeypatch.setattr(UploadQueue, "extend", extend)
    quick = UploadQueue(queue.queue_url, visibility_timeout_seconds=0.03)  # a beat within milliseconds
    with quick.keep_invisible(message):
        assert twice.wait(timeout=10)


def test_the_heartbeat_ends_when_the_message_was_lost(queue: UploadQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    send(queue)
    message = receive(queue)
    beats: list[threading.Thread] = []

    def lose(_self: UploadQueue, _message: ReceivedMessage, _seconds: float) -> None:
        beats.append(threading.current_thread())
        raise MessageLost("gone")

    monkeypatch.setattr(UploadQueue, "extend", lose)
    quick = UploadQueue(queue.queue_url, visibility_timeout_seconds=0.03)  # a beat within milliseconds
    with quick.keep_invisible(message):
        deadline = time.monotonic() + 10
        while not beats and time.monotonic() < deadline:
            time.sleep(0.01)
        (beat,) = beats
        beat.join(timeout=10)
        assert not beat.is_alive()
