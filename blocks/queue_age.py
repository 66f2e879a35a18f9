"""Finds out how long the oldest message in a queue has waited, because an older upload cannot be in the queue."""

from datetime import UTC, datetime, timedelta
from typing import Any

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors
from blocks.upload_queue import count_messages

_METRIC = "ApproximateAgeOfOldestMessage"
_LOOK_BACK = timedelta(minutes=15)
_PERIOD_SECONDS = 60


def oldest_message_since(queue_url: str, *, cloudwatch: Any = None) -> datetime | None:
    """Return a time before which none of the messages in the queue was sent, or None if it is unknown.

    For an empty queue, this is the current time. Otherwise it comes from CloudWatch, because SQS shows a message's age
    only to a receiver, and receiving counts as a delivery. CloudWatch's metric ignores messages that were received
    three times, and may lag by 15 minutes after a queue was idle for hours
    (docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html). The
    local cloud, an AWS emulator, does not have this metric.

    Raises:
        AwsUnavailable, AwsRefused, AwsCallInvalid: a call to SQS or CloudWatch failed.
    """
    now = datetime.now(UTC)
    if not any(count_messages(client_of("sqs"), queue_url)):
        return now
    with explaining_aws_errors(f"looking for the age of the oldest message in {queue_url}"):
        ages = (cloudwatch or client_of("cloudwatch")).get_metric_statistics(
            Namespace="AWS/SQS",
            MetricName=_METRIC,
            Dimensions=[{"Name": "QueueName", "Value": queue_url.rsplit("/", 1)[-1]}],
            StartTime=now - _LOOK_BACK,
            EndTime=now,
            Period=_PERIOD_SECONDS,
            Statistics=["Maximum"],
        )["Datapoints"]
    # Take the earliest time of all data points, because a point covers a minute, and the newest may be incomplete.
    return min((point["Timestamp"] - timedelta(seconds=point["Maximum"]) for point in ages), default=None)
