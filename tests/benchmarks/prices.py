"""Estimates what uploads cost on AWS, from counted calls and list prices.

The prices are list prices for us-east-1 in US dollars as of March 2026. Free tiers are not taken into account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.counts import Counts, TaskTimes

TASK_VCPUS, TASK_GB = 1, 2  # the template's defaults
START_SECONDS = 30  # an estimate: Fargate also bills the pull of the image, most of the 20 to 70 s until a task runs
MINIMUM_SECONDS = 60  # Fargate bills at least this for a task: aws.amazon.com/fargate/pricing/
FUNCTION_GB, FUNCTION_SECONDS = 0.25, 1  # the template's memory, and an upper limit for an invocation
STATE_LOG_BYTES = 500  # the size of one event of an execution's history, without data

VCPU_HOUR, GB_HOUR = 0.04048, 0.004445  # aws.amazon.com/fargate/pricing/
ADDRESS_HOUR = 0.005  # aws.amazon.com/vpc/pricing/
TRANSITION = 0.000025  # aws.amazon.com/step-functions/pricing/
S3_WRITE, S3_READ = 0.000005, 0.0000004  # aws.amazon.com/s3/pricing/; deleting is free
SQS_REQUEST = 0.0000004  # aws.amazon.com/sqs/pricing/
FUNCTION_CALL, FUNCTION_GB_SECOND = 0.0000002, 0.0000133334  # aws.amazon.com/lambda/pricing/ (Arm)
EVENT = 0.000001  # aws.amazon.com/eventbridge/pricing/: a custom event of up to 64 KB
LOG_GB = 0.50  # aws.amazon.com/cloudwatch/pricing/
METRIC_MONTH, ALARM_MONTH = 0.30, 0.10  # the same page
TRACE = 0.000005  # aws.amazon.com/xray/pricing/
IMAGE_GB_MONTH = 0.10  # aws.amazon.com/ecr/pricing/
SECRET_MONTH = 0.40  # aws.amazon.com/secrets-manager/pricing/
SWEEPS_A_MONTH = 30 * 24 * 12

_S3_WRITES = ("s3:PutObject", "s3:ListBucket", "s3:ListBucketVersions")
_S3_FREE = ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload")


@dataclass(frozen=True)
class Line:
    """A line of an estimated bill."""

    what: str
    count: float
    each: float

    @property
    def dollars(self) -> float:
        """Return the price of the line in US dollars."""
        return self.count * self.each


def billed_seconds(task: TaskTimes) -> float:
    """Return the seconds that Fargate would bill for a task: at least 60, from the pull of its image to its end.

    On this machine, the pull takes no time, so an estimate is added. If the task has to wait for more messages, the
    pull is part of the waiting time.
    """
    last_poll = task.seconds - max(task.busy, task.stay)
    return max(MINIMUM_SECONDS, max(START_SECONDS + task.busy, task.stay) + last_poll)


def task_hours(counts: Counts) -> float:
    """Return the task hours that Fargate bills."""
    return sum(map(billed_seconds, counts.tasks)) / 3_600


def bill(counts: Counts, files: int = 1_000) -> list[Line]:
    """Return the bill for `files` uploads, if each of them costs as much as the average counted upload."""
    times = files / counts.files
    hours = task_hours(counts) * times
    s3 = counts.aws_requests("s3:") - counts.aws_requests(*_S3_FREE)
    log_bytes = counts.log_bytes + counts.history_events * STATE_LOG_BYTES
    s3_writes = counts.aws_requests(*_S3_WRITES)
    return [
        Line("Fargate, in hours", hours, TASK_VCPUS * VCPU_HOUR + TASK_GB * GB_HOUR),
        Line("public IPv4 addresses, in hours", hours, ADDRESS_HOUR),
        Line("state transitions", counts.transitions * times, TRANSITION),
        Line("S3 writes and lists", s3_writes * times, S3_WRITE),
        Line("S3 reads", (s3 - s3_writes) * times, S3_READ),
        Line("SQS requests", counts.aws_requests("sqs:") * times, SQS_REQUEST),
        Line("Lambda invocations", counts.lambda_calls * times, FUNCTION_CALL),
        Line("Lambda, in GB-seconds", counts.lambda_calls * FUNCTION_SECONDS * FUNCTION_GB * times, FUNCTION_GB_SECOND),
        Line("EventBridge events", counts.events * times, EVENT),
        Line("logs, in GB", log_bytes / 1e9 * times, LOG_GB),
        Line(
            "X-Ray traces, if every invocation and execution is traced",
            (counts.lambda_calls + counts.executions) * times,
            TRACE,
        ),
    ]


def at_rest(sweep: Counts, alarms: int, has_secret: bool = True) -> list[Line]:
    """Return the bill for a month without uploads, from the counts of one sweep."""
    return [
        Line("alarms", alarms, ALARM_MONTH),
        Line("state transitions of the sweep, every five minutes", sweep.transitions * SWEEPS_A_MONTH, TRANSITION),
        Line("logs of the sweep, in GB", sweep.history_events * STATE_LOG_BYTES / 1e9 * SWEEPS_A_MONTH, LOG_GB),
        Line("X-Ray traces of the sweep", sweep.executions * SWEEPS_A_MONTH, TRACE),
        Line("images in ECR, in GB: three of 0.25 GB without common layers", 0.75, IMAGE_GB_MONTH),
        Line("Prefect's secret", int(has_secret), SECRET_MONTH),
    ]


def total(lines: Sequence[Line]) -> float:
    """Return the sum of a bill in US dollars. Each line is rounded to whole cents first, as in the documentation."""
    return sum(round(line.dollars, 2) for line in lines)


# --- quotas -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quota:
    """An AWS quota, and how much of it a file uses.

    Attributes:
        limit: the quota in the regions where it is lowest: a rate per second, or a number at the same time.
        each: how much of the rate a file uses, or the sum of the seconds for which it uses one unit.
    """

    name: str
    limit: float
    each: float
    remark: str

    @property
    def files_per_second(self) -> float:
        """Return the rate of files at which the quota is reached."""
        return self.limit / self.each


def quotas(burst: Counts) -> list[Quota]:
    """Return the AWS quotas that limit uploads, with the use per file in a burst like the counted one."""
    task_seconds = sum(task.busy for task in burst.tasks) / burst.files
    return [
        Quota(
            "Fargate On-Demand vCPUs (Spot has a separate quota)",
            6,
            task_seconds * TASK_VCPUS,
            "6 in a new account; raise it to twice the new `MaxConcurrentTasks` times a task's vCPUs before you raise "
            "`MaxConcurrentTasks`",
        ),
        Quota(
            "Lambda concurrent executions",
            10,
            FUNCTION_SECONDS,
            "10 in a new account, otherwise 1,000; events above the quota are not lost, but wait",
        ),
        Quota("Step Functions StartExecution", 150, burst.starts / burst.files, "300 in the largest three regions"),
        Quota(
            "Step Functions state transitions",
            800,
            burst.transitions / burst.files,
            "5,000 in the largest three regions; fewer in a new account",
        ),
        Quota(
            "EventBridge PutEvents",
            600,
            burst.aws_requests("events:PutEvents") / burst.files,
            "up to 10,000 in larger regions",
        ),
        Quota(
            "S3 writes below one prefix",
            3_500,
            1,
            "S3 raises it automatically; `receipts/` gets one object for each file",
        ),
    ]
