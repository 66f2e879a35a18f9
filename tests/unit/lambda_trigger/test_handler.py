"""The Lambda queues every upload, and reports the ones that it could not queue."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from lambda_trigger.dispatch import Dispatcher
from lambda_trigger.events import EventUnreadable
from lambda_trigger.handler import RecordsFailed, TriggerConfig, handle, handle_event, trigger_from_environment
from lambda_trigger.message import UploadMessage

BUCKET = "amzn-s3-demo-bucket"
MACHINE = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}


class Cloud:
    """Create a queue and a state machine in moto."""

    def __init__(self) -> None:
        self.sqs = boto3.client("sqs")
        self.step_functions = boto3.client("stepfunctions")
        self.queue_url = self.sqs.create_queue(QueueName="uploads")["QueueUrl"]
        self.machine_arn = self.step_functions.create_state_machine(
            name="process-upload", definition=json.dumps(MACHINE), roleArn="arn:aws:iam::123456789012:role/machine"
        )["stateMachineArn"]

    def trigger(self, *, sqs: Any = None, step_functions: Any = None) -> TriggerConfig:
        return TriggerConfig(
            bucket=BUCKET,
            incoming_prefix="incoming/",
            dispatcher=Dispatcher(
                sqs=sqs or self.sqs,
                step_functions=step_functions or self.step_functions,
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
    with mock_aws():
        yield Cloud()


class Refusing:
    """Denies one operation, and forwards everything else."""

    def __init__(self, inner: Any, operation: str) -> None:
        self._inner, self._operation = inner, operation

    def __getattr__(self, name: str) -> Any:
        if name != self._operation:
            return getattr(self._inner, name)

        def refuse(**_: Any) -> Any:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, name)

        return refuse


def other_key(record: dict[str, Any], key: str) -> dict[str, Any]:
    other = deepcopy(record)
    other["s3"]["object"]["key"] = key
    return other


def test_an_upload_is_one_message_and_one_execution_of_its_name(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    assert handle_event(s3_put, cloud.trigger()) == {"dispatched": 1, "ignored": 0, "failed": 0}
    (message,) = cloud.messages()
    assert cloud.executions() == [message.execution_name]


def test_the_execution_is_told_the_run_id_and_the_upload(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    handle_event(s3_put, cloud.trigger())
    (message,) = cloud.messages()
    (execution,) = cloud.step_functions.list_executions(stateMachineArn=cloud.machine_arn)["executions"]
    described = cloud.step_functions.describe_execution(executionArn=execution["executionArn"])
    told = json.loads(described["input"])
    assert (told["run_id"], told["attempt"], told["upload"]["key"]) == (message.run_id, 0, message.key)


def test_a_duplicate_event_starts_no_second_execution(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    for _ in range(5):
        handle_event(s3_put, cloud.trigger())
    assert len(cloud.executions()) == 1


def test_a_duplicate_with_another_input_is_still_the_same_upload(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    """A later re-delivery may have another event time: Step Functions then answers ExecutionAlreadyExists."""
    handle_event(s3_put, cloud.trigger())
    s3_put["Records"][0]["eventTime"] = "1970-01-01T00:05:00.000Z"
    assert handle_event(s3_put, cloud.trigger())["dispatched"] == 1
    assert len(cloud.executions()) == 1


def test_one_bad_record_does_not_keep_the_others(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    good = s3_put["Records"][0]
    event = {"Records": [{"eventName": "ObjectCreated:Put"}, good, other_key(good, "incoming/orders/second.csv")]}
    with pytest.raises(RecordsFailed):
        handle_event(event, cloud.trigger())
    assert len(cloud.messages()) == 2
    assert len(cloud.executions()) == 2


def test_a_refused_send_starts_nothing_and_fails_the_invocation(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    with pytest.raises(RecordsFailed):
        handle_event(s3_put, cloud.trigger(sqs=Refusing(cloud.sqs, "send_message")))
    assert cloud.executions() == []


def test_a_refused_start_fails_the_invocation_and_the_retry_heals_it(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    with pytest.raises(RecordsFailed):
        handle_event(s3_put, cloud.trigger(step_functions=Refusing(cloud.step_functions, "start_execution")))
    handle_event(s3_put, cloud.trigger())
    assert len(cloud.executions()) == 1
    assert len({message.run_id for message in cloud.messages()}) == 1


def test_ignored_records_reach_neither_queue_nor_machine(cloud: Cloud, s3_put: dict[str, Any]) -> None:
    s3_put["Records"][0]["eventName"] = "ObjectRemoved:Delete"
    assert handle_event(s3_put, cloud.trigger()) == {"dispatched": 0, "ignored": 1, "failed": 0}
    assert cloud.messages() == []


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Return what the Lambda logs; its logger does not propagate to the root logger, where pytest listens."""
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


def test_every_upload_is_logged_with_its_run_and_how_long_it_took(
    cloud: Cloud, s3_put: dict[str, Any], lines: list[str]
) -> None:
    handle_event(s3_put, cloud.trigger(), request_id="r-1")
    (line,) = (json.loads(line) for line in lines)
    (message,) = cloud.messages()
    assert (line["level"], line["event"], line["run_id"]) == ("INFO", "dispatched", message.run_id)
    assert line["seconds"] >= 0


def test_the_test_event_is_answered_and_does_nothing(cloud: Cloud, s3_test_event: dict[str, Any]) -> None:
    assert handle_event(s3_test_event, cloud.trigger()) == {"dispatched": 0, "ignored": 0, "failed": 0}


@pytest.mark.parametrize("event", [{}, "not json", None])
def test_what_is_no_event_fails_the_invocation_so_that_its_destination_keeps_it(cloud: Cloud, event: object) -> None:
    with pytest.raises(EventUnreadable):
        handle_event(event, cloud.trigger())


def test_the_handler_reads_its_settings_from_the_environment(
    cloud: Cloud, s3_put: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_LANDING_BUCKET", BUCKET)
    monkeypatch.setenv("SLUICE_QUEUE_URL", cloud.queue_url)
    monkeypatch.setenv("SLUICE_STATE_MACHINE_ARN", cloud.machine_arn)
    trigger_from_environment.cache_clear()
    try:
        assert handle(s3_put, None)["dispatched"] == 1
    finally:
        trigger_from_environment.cache_clear()
    assert len(cloud.messages()) == 1
