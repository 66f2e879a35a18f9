"""How long messages have waited in a queue: what is older than all of them is in no message."""

from datetime import UTC, datetime, timedelta
from typing import Any

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors

_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
_METRIC = "ApproximateAgeOfOldestMessage"
_LOOK_BACK = timedelta(minutes=15)
_PERIOD_SECONDS = 60


def oldest_message_since(queue_url: str, *, sqs: Any = None, cloudwatch: Any = None) -> datetime | None:
    """Return a time before which no message of the queue was sent; None where that is unknown.

    An empty queue has no message before now. SQS does not tell a message's age without receiving it, which would count
    as a delivery. So of a queue with messages CloudWatch is asked. Its metric leaves out messages that were
    received three times, and starts again up to 15 minutes after a queue was idle for hours
    (docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html); the
    embedded cloud has no such metric.

    Raises:
        AwsUnavailable, AwsRefused: SQS or CloudWatch did not answer.
    """
    now = datetime.now(UTC)
    with explaining_aws_errors(f"counting the messages in {queue_url}"):
        counts = (sqs or client_of("sqs")).get_queue_attributes(QueueUrl=queue_url, AttributeNames=list(_COUNTS))
    if not any(int(counts["Attributes"].get(name, 0)) for name in _COUNTS):
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
    # The earliest of all points: a point is a minute long, and the newest may not have every server's answer yet.
    return min((point["Timestamp"] - timedelta(seconds=point["Maximum"]) for point in ages), default=None)
