"""The Lambda queues every upload, and fails if it could not queue one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lambda_trigger.dispatch import Dispatcher
from lambda_trigger.events import EventUnreadable
from lambda_trigger.handler import RecordsFailed, TriggerConfig, handle, handle_event, trigger_from_environment
from lambda_trigger.message import UploadMessage
from lambda_trigger.pause import PAUSE_KEY
from tests.unit.empty_account import empty_account

BUCKET = "amzn-s3-demo-bucket"
PUBLISHED = "amzn-s3-demo-bucket1"
WINDOW = 60
MACHINE = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}


class Cloud:
    """The resources that the Lambda uses, created in moto: a queue, a state machine and a bucket."""

    def __init__(self) -> None:
        self.sqs = boto3.client("sqs")
        self.step_functions = boto3.client("stepfunctions")
        self.s3 = boto3.client("s3")
        self.s3.create_bucket(Bucket=PUBLISHED, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        self.now = 90.0  # in the middle of the second window
        self.queue_url = self.sqs.create_queue(QueueName="uploads")["QueueUrl"]
        self.machine_arn = self.step_functions.create_state_machine(
            name="drain", definition=json.dumps(MACHINE), roleArn="arn:aws:iam::123456789012:role/machine"
        )["stateMachineArn"]

    def trigger(self, *, sqs: Any = None, step_functions: Any = None) -> TriggerConfig:
        return TriggerConfig(
            bucket=BUCKET,
            incoming_prefix="incoming/",
            dispatcher=Dispatcher(
                sqs=sqs or self.sqs,
                step_functions=step_functions or self.step_functions,
                s3=self.s3,
                published_bucket=PUBLISHED,
                window_seconds=WINDOW,
                clock=lambda: self.now,
                queue_url=self.queue_url,
                state_machine_arn=self.machine_arn,
            ),
        )

    def messages(self) -> list[UploadMessage]:
        received = self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10)
        return [UploadMessage.from_json(message["Body"]) for message in received.get("Messages", [])]

    def executions(self) -> list[str]:
        return [
            execution["name"]
            for execution in self.step_functions.list_executions(stateMachineArn=self.machine_arn)["executions"]
        ]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with empty_account():
        yield Cloud()


class Counting:
    """Wraps a Step Functions client and counts its StartExecution calls."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.starts = inner, 0

    def start_execution(self, **call: Any) -> Any:
        self.starts += 1
        return self._inner.start_execution(**call)


class Refusing:
    """Wraps a boto3 client. The first `times` calls of one operation fail."""

    def __init__(self, inner: Any, operation: str, times: int = 1_000) -> None:
        self._inner, self._operation, self._left = inner, operation, times

    def __getattr__(self, name: str) -> Any:
        if name != self._operation or not self._left:
            return getattr(self._inner, name)
        self._left -= 1

        def refuse(**_: Any) -> Any:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, name)

        return refuse


def other_key(record: dict[str, Any], key: str) -> dict[str, Any]:
    other = deepcopy(record)
    other["s3"]["object"]["key"] = key
    return other


def test_an_upload_becomes_one_message_and_starts_the_drain_of_its_window(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    assert handle_event(s3_put, cloud.trigger()) == {"dispatched": 1, "ignored": 0, "failed": 0}
    assert len(cloud.messages()) == 1
    assert cloud.executions() == ["upload-1"]


def test_the_input_of_a_drain_names_its_source_and_no_upload(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    """All uploads of a window use the same input, because StartExecution is idempotent only for equal input."""
    handle_event(s3_put, cloud.trigger())
    (execution,) = cloud.step_functions.list_executions(stateMachineArn=cloud.machine_arn)["executions"]
    described = cloud.step_functions.describe_execution(executionArn=execution["executionArn"])
    assert json.loads(described["input"]) == {"source": "upload"}


def test_the_uploads_of_a_window_share_a_drain_and_those_of_the_next_have_another(
    cloud: Cloud, s3_put: dict[str, Any]
) -> None:
    counted = Counting(cloud.step_functions)
    trigger = cloud.trigger(step_functions=counted)
    for cloud.now in (60.0, 60.1, 119.9, 120.0):
        handle_event(s3_put, trigger)
    assert sorted(cloud.executions()) == ["upload-1", "upload-2"]
    assert counted.starts == 2
    assert len(cloud.messages()) == 4


def test_independent_processes_start_the_drain_of_a_window_once(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    """If Step Functions responds that the execution already exists, running or closed, the window has its drain."""
    for _ in range(5):
        assert handle_event(s3_put, cloud.trigger())["dispatched"] == 1
    assert cloud.executions() == ["upload-1"]


def test_the_message_is_sent_before_the_clock_is_read(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    """If the clock were read first, the drain of that window could end before the message arrives."""

    class SlowQueue:
        def send_message(self, **call: Any) -> Any:
            cloud.now = 120.0
            return cloud.sqs.send_message(**call)

    handle_event(s3_put, cloud.trigger(sqs=SlowQueue()))
    assert cloud.executions() == ["upload-2"]


def test_during_a_pause_messages_are_queued_and_no_drain_starts(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    trigger = cloud.trigger()
    cloud.s3.put_object(Bucket=PUBLISHED, Key=PAUSE_KEY, Body=b"{}")
    assert handle_event(s3_put, trigger)["dispatched"] == 1
    assert (len(cloud.messages()), cloud.executions()) == (1, [])
    cloud.s3.delete_object(Bucket=PUBLISHED, Key=PAUSE_KEY)
    handle_event(s3_put, trigger)
    assert cloud.executions() == ["upload-1"], "a window that was not started is not remembered"


def test_an_unreadable_record_does_not_stop_the_others(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    good = s3_put["Records"][0]
    event = {"Records": [{"eventName": "ObjectCreated:Put"}, good, other_key(good, "incoming/orders/second.csv")]}
    with pytest.raises(RecordsFailed):
        handle_event(event, cloud.trigger())
    assert len(cloud.messages()) == 2
    assert cloud.executions() == ["upload-1"]


def test_a_failed_send_starts_no_drain_and_fails_the_invocation(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    with pytest.raises(RecordsFailed):
        handle_event(s3_put, cloud.trigger(sqs=Refusing(cloud.sqs, "send_message")))
    assert cloud.executions() == []


def test_a_failed_start_fails_the_invocation_and_a_retry_starts_the_drain(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    """The retry also works in the same process, because the Lambda remembers only windows whose drain it started."""
    trigger = cloud.trigger(step_functions=Refusing(cloud.step_functions, "start_execution", times=1))
    with pytest.raises(RecordsFailed):
        handle_event(s3_put, trigger)
    handle_event(s3_put, trigger)
    assert len(cloud.executions()) == 1
    assert len({message.run_id for message in cloud.messages()}) == 1


def test_ignored_records_are_not_queued_and_start_no_drain(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    s3_put["Records"][0]["eventName"] = "ObjectRemoved:Delete"
    assert handle_event(s3_put, cloud.trigger()) == {"dispatched": 0, "ignored": 1, "failed": 0}
    assert (cloud.messages(), cloud.executions()) == ([], [])


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Collect the lines that the Lambda logs. pytest does not capture them, because the logger does not propagate."""
    logger, written = logging.getLogger("sluice.trigger"), list[str]()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    listening = Listening()
    logger.addHandler(listening)
    yield written
    logger.removeHandler(listening)


def test_every_ignored_record_is_logged_with_its_reason(cloud: Cloud, s3_put: dict[str, Any], lines: list[str]) -> None:
    s3_put["Records"][0]["s3"]["object"].update(key="incoming/orders/", size=0)
    handle_event(s3_put, cloud.trigger(), request_id="r-1")
    (line,) = (json.loads(line) for line in lines)
    assert (line["event"], line["reason"], line["request_id"]) == ("ignored", "folder_marker", "r-1")


def test_every_upload_is_logged_with_its_run_id_and_its_duration(
    cloud: Cloud, s3_put: dict[str, Any], lines: list[str]
) -> None:
    handle_event(s3_put, cloud.trigger(), request_id="r-1")
    (line,) = (json.loads(line) for line in lines)
    (message,) = cloud.messages()
    assert (line["level"], line["event"], line["run_id"]) == ("INFO", "dispatched", message.run_id)
    assert line["seconds"] >= 0


def test_the_test_event_dispatches_nothing(cloud: Cloud, s3_test_event: dict[str, Any]) -> None:
    assert handle_event(s3_test_event, cloud.trigger()) == {"dispatched": 0, "ignored": 0, "failed": 0}


@pytest.mark.parametrize("event", [{}, "not json", None])
def test_an_unreadable_event_fails_the_invocation(cloud: Cloud, event: object) -> None:
    with pytest.raises(EventUnreadable):
        handle_event(event, cloud.trigger())


def test_the_handler_reads_its_settings_from_the_environment(
    cloud: Cloud, s3_put: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_LANDING_BUCKET", BUCKET)
    monkeypatch.setenv("SLUICE_QUEUE_URL", cloud.queue_url)
    monkeypatch.setenv("SLUICE_STATE_MACHINE_ARN", cloud.machine_arn)
    monkeypatch.setenv("SLUICE_PUBLISHED_BUCKET", PUBLISHED)
    monkeypatch.setenv("SLUICE_WINDOW_SECONDS", "60")
    trigger_from_environment.cache_clear()
    try:
        assert handle(s3_put, None)["dispatched"] == 1
    finally:
        trigger_from_environment.cache_clear()
    assert len(cloud.messages()) == 1
