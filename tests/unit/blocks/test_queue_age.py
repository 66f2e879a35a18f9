"""The age of the oldest message comes from CloudWatch, unless the queue is empty."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws

from blocks.queue_age import oldest_message_since


class Ages:
    """A CloudWatch client with these data points for the age of the oldest message: (minutes ago, age in seconds)."""

    def __init__(self, *points: tuple[int, float]) -> None:
        self.points = points
        self.asked: dict[str, Any] = {}

    def get_metric_statistics(self, **asked: Any) -> dict[str, Any]:
        self.asked = asked
        now = datetime.now(UTC)
        points = [{"Timestamp": now - timedelta(minutes=ago), "Maximum": age} for ago, age in self.points]
        return {"Datapoints": points}


@pytest.fixture
def queue_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield boto3.client("sqs").create_queue(QueueName="uploads")["QueueUrl"]


def seconds_ago(moment: datetime | None) -> float:
    assert moment is not None
    return (datetime.now(UTC) - moment).total_seconds()


def test_an_empty_queue_has_no_message_before_now(queue_url: str) -> None:
    assert seconds_ago(oldest_message_since(queue_url, cloudwatch=Ages((1, 3600.0)))) < 5


@pytest.mark.parametrize("is_held", [False, True])
def test_the_oldest_message_is_as_old_as_cloudwatch_reports(queue_url: str, is_held: bool) -> None:
    boto3.client("sqs").send_message(QueueUrl=queue_url, MessageBody="a")
    if is_held:
        boto3.client("sqs").receive_message(QueueUrl=queue_url)
    ages = Ages((1, 60.0), (5, 600.0), (9, 30.0))
    assert seconds_ago(oldest_message_since(queue_url, cloudwatch=ages)) == pytest.approx(900, abs=5)
    assert (ages.asked["Namespace"], ages.asked["MetricName"]) == ("AWS/SQS", "ApproximateAgeOfOldestMessage")
    assert ages.asked["Dimensions"] == [{"Name": "QueueName", "Value": "uploads"}]


def test_a_queue_with_a_delayed_message_is_not_empty(queue_url: str) -> None:
    boto3.client("sqs").send_message(QueueUrl=queue_url, MessageBody="a", DelaySeconds=60)
    assert oldest_message_since(queue_url, cloudwatch=Ages()) is None


def test_without_the_metric_the_age_is_unknown(queue_url: str) -> None:
    boto3.client("sqs").send_message(QueueUrl=queue_url, MessageBody="a")
    assert oldest_message_since(queue_url) is None
