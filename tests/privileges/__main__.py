"""Checks that each role has exactly the permissions that it uses: `python -m tests.privileges`.

It is the last step of `make test`, because it reads the calls that the suites recorded. It fails if a role was denied
an action that no policy allows, if a policy allows an action that no role used, or if an exception is out of date.
"""

from __future__ import annotations

import sys

from tests.privileges.calls import load
from tests.privileges.compare import Grant, missing, unused

_DELIVERY = (
    "Step Functions itself, when it sets up its log: "
    "docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html#cloudwatch-iam-policy"
)
_TRACING = "Step Functions itself, when it traces: docs.aws.amazon.com/step-functions/latest/dg/xray-iam.html"
# Statements that are needed on AWS, but that nothing uses in the local cloud: (role, statement) → who uses them.
EXCEPTIONS = {
    ("DrainRole", "DeliverLogs"): _DELIVERY,
    ("DrainRole", "Trace"): _TRACING,
    ("TriggerRole", "Trace"): "Lambda itself: docs.aws.amazon.com/lambda/latest/dg/services-xray.html",
    ("TriggerRole", "Log"): "Lambda itself: docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html",
    ("TriggerRole", "KeepFailedEvents"): (
        "Lambda itself, for events that failed in every try; MiniStack moves them as root (tests/faults finds them "
        "there): docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html"
    ),
    ("TaskExecutionRole", "LogInToRegistry"): "ECS itself, to pull the image; the local cloud starts processes",
    ("TaskExecutionRole", "PullImage"): "ECS itself, to pull the image; the local cloud starts processes",
    ("TaskRole", "ReadTaskLogs"): "explain-crash, on a worker of type ecs; a local worker is no task with a log",
    (
        "TaskRole",
        "AbortLargeUploads",
    ): "boto3, when a part of a large output could not be uploaded in any of its tries",
}
# Unused actions in statements of which other actions are used: (role, statement, action, resource's index) → why.
SINGLE_EXCEPTIONS = {
    ("TaskRole", "DistinguishMissingFromForbidden", "s3:ListBucket", 1): (
        "S3 checks the permission before it answers that an upload is gone: "
        "docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html"
    ),
}
# Denied calls that the component does not need: (role, action) → why.
DENIALS = {
    ("TaskRole", "ecs:DescribeTaskDefinition"): (
        "explain-crash next to a local worker looks for the log of a task; without it, it shows the lines in Prefect"
    ),
}


def stale_exceptions(never_called: list[Grant]) -> list[str]:
    """Return the exceptions that are out of date, because the action was called or no policy allows it any more."""
    statements = {(grant.role, grant.sid) for grant in never_called}
    grants = {grant.key for grant in never_called}
    stale = [" ".join(key) for key in EXCEPTIONS if key not in statements]
    return stale + [" ".join(map(str, key)) for key in SINGLE_EXCEPTIONS if key not in grants]


def main() -> int:
    """Compare what the suites recorded with the policies, print the differences, and return the exit code."""
    records = load()
    if not records:
        sys.stdout.write("No calls were recorded: run the suites first (make infra runs chain faults).\n")
        return 1
    never_called = unused(records)
    unexcused = [
        one for one in never_called if (one.role, one.sid) not in EXCEPTIONS and one.key not in SINGLE_EXCEPTIONS
    ]
    denied = [one for one in missing(records) if (one.role, one.action) not in DENIALS]
    problems = [
        *(f"{one.role} called {one.action} on {one.resource}, but no policy allows it" for one in denied),
        *(f"{one.role} is allowed {one.action} on {one.resource} ({one.sid}), but never used it" for one in unexcused),
        *(f"the exception is out of date: {one}" for one in stale_exceptions(never_called)),
    ]
    calls = sum(len(record.calls) for record in records)
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    sys.stdout.write(
        f"Roles and policies: {calls:,} different calls in {len(records)} stacks, {len(problems)} problems\n"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
