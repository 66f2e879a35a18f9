"""Tests that outcomes reach subscribers through EventBridge, and that the tasks' log contains the metrics that alarms
watch."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployment import PROJECT_ROOT
from deployment.local.pipeline import STACK_NAME
from flows.pipeline.announce import NAMESPACE
from tests.chain.chain import Chain
from tests.chain.files import good_orders, order, orders

pytestmark = pytest.mark.cloud

_EXAMPLE = re.compile(r"```yaml\n(AWSTemplateFormatVersion.*?)```", re.DOTALL)


@dataclass
class Subscriber:
    """The stack from the example in docs/outcomes.md, with a rule and a queue."""

    chain: Chain
    queue_url: str
    _events: dict[str, dict[str, Any]] = field(default_factory=dict)

    def events(self) -> dict[str, dict[str, Any]]:
        """Return the events that have arrived so far, by run ID."""
        while messages := self.chain.sqs.receive_message(QueueUrl=self.queue_url).get("Messages"):
            for message in messages:
                event = json.loads(message["Body"])
                self._events[event["detail"]["run_id"]] = event
                self.chain.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        return self._events


@pytest.fixture(scope="module")
def subscriber(chain: Chain) -> Iterator[Subscriber]:
    (template,) = _EXAMPLE.findall((PROJECT_ROOT / "docs" / "outcomes.md").read_text(encoding="utf-8"))
    cloudformation = chain.cloud.client("cloudformation")
    cloudformation.create_stack(StackName="subscriber", TemplateBody=template)
    cloudformation.get_waiter("stack_create_complete").wait(StackName="subscriber", WaiterConfig={"Delay": 1})
    described = cloudformation.describe_stack_resource(StackName="subscriber", LogicalResourceId="PublishedOrders")
    yield Subscriber(chain, described["StackResourceDetail"]["PhysicalResourceId"])
    cloudformation.delete_stack(StackName="subscriber")


def metrics_of(chain: Chain) -> set[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """Return the namespace, name and dimensions of every metric in the tasks' log, as CloudWatch reads them."""
    found = set()
    for line in chain.log_lines("TaskLogGroup"):
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            for names in directive["Dimensions"]:
                dimensions = tuple(sorted((name, line[name]) for name in names))
                for metric in directive["Metrics"]:
                    assert metric["Name"] in line
                    found.add((directive["Namespace"], metric["Name"], dimensions))
    return found


def alarms_of(chain: Chain) -> set[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """Return the namespace, name and dimensions of every Sluice metric that an alarm of the stack watches."""
    pages = chain.cloud.client("cloudwatch").get_paginator("describe_alarms").paginate()
    return {
        (
            alarm["Namespace"],
            alarm["MetricName"],
            tuple(sorted((each["Name"], each["Value"]) for each in alarm["Dimensions"])),
        )
        for page in pages
        for alarm in page["MetricAlarms"]
        if alarm["Namespace"] == NAMESPACE
    }


def key() -> str:
    return f"incoming/orders/outcome-{uuid.uuid4().hex[:8]}.csv"


def test_the_rule_of_the_documentation_delivers_the_published_uploads_of_its_dataset(
    chain: Chain, subscriber: Subscriber
) -> None:
    rejected = chain.upload(key(), orders(order(1, quantity=0)))
    other = chain.upload(f"incoming/others/{uuid.uuid4().hex}.csv", b"a,b\n1,2\n")
    published = chain.upload(key(), good_orders(3))
    for upload in (rejected, other, published):
        chain.done(upload)
    chain.settle()
    event = chain.wait_for(lambda: subscriber.events().get(published.run_id), "the event", 30)
    assert {rejected.run_id, other.run_id}.isdisjoint(subscriber.events())
    assert (event["source"], event["detail-type"]) == ("sluice", "Sluice Upload Published")
    assert event["detail"]["stack"] == STACK_NAME
    assert event["detail"]["rows"] == {"rows_in": 3, "published": 3, "quarantined": 0, "dropped": 0}
    receipt_uri = f"s3://{chain.outputs['PublishedBucket']}/receipts/{published.run_id}.json"
    assert (event["detail"]["key"], event["detail"]["receipt_uri"]) == (published.key, receipt_uri)


def test_every_alarm_on_a_metric_of_sluice_watches_one_in_the_tasks_log(chain: Chain) -> None:
    last_delivery = {"SLUICE_MAX_RECEIVE_COUNT": "1", "SLUICE_RETRY_DELAY_SECONDS": "0"}
    with chain.tasks_that(environment=last_delivery), chain.denied("s3:GetObject*"):
        given_up = chain.upload(key(), good_orders(1))
        chain.wait_for(lambda: chain.attempt(given_up), "the upload to be given up")
        chain.settle()
    chain.sqs.purge_queue(QueueUrl=chain.outputs["DeadLetterQueueUrl"])  # other tests show that this queue is empty
    with chain.denied("events:PutEvents"):
        chain.done(chain.upload(key(), good_orders(1)))
        chain.settle()
    watched = alarms_of(chain)
    assert watched
    assert watched <= metrics_of(chain)


def test_an_outcome_that_eventbridge_rejects_stays_in_its_batch_note_and_is_announced_later(
    chain: Chain, subscriber: Subscriber
) -> None:
    with chain.denied("events:PutEvents"):
        upload = chain.upload(key(), good_orders(2))
        chain.done(upload)
        chain.wait_for(chain.queue_is_empty, "the message to be deleted")
        chain.wait_for(lambda: not chain.tasks(), "the task to leave")
        assert chain.keys("batches/")
        assert upload.run_id not in subscriber.events()

    def announced() -> bool:
        if not chain.drains("RUNNING"):
            chain.sweep()  # this launches a task once the batch note is older than the visibility timeout
        return upload.run_id in subscriber.events()

    chain.wait_for(announced, "a task of the sweep to announce it", 120)
    chain.wait_for(lambda: not chain.keys("batches/"), "the note to go")
