"""The tasks that are at work on a stack's cluster: CloudFormation deletes a cluster only once none is left.

docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteCluster.html (ClusterContainsTasksException)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from blocks.aws_errors import aws_error_code
from flows.refinery.errors import TransientError

DEADLINE_SECONDS = 300.0  # a container has 120 seconds after SIGTERM (stopTimeout), then its network is taken down
_PAUSE_SECONDS = 2.0
_NO_CLUSTER = "ClusterNotFoundException"
_GONE = "STOPPED"


class TasksStillRunning(TransientError):
    """Tasks of the stack were told to stop and had not ended minutes later; the stack was not deleted."""


def end_tasks(
    ecs: Any,
    cluster: str,
    on_stop: Callable[[int], None],
    *,
    reason: str,
    deadline_seconds: float = DEADLINE_SECONDS,
    pause_seconds: float = _PAUSE_SECONDS,
) -> int:
    """Stop every task of the cluster, wait until none is left, and return how many were at work.

    A task that is told to stop gives its messages back, so that nothing of an upload is lost. A cluster that does not
    exist has no tasks.

    Args:
        ecs: the client.
        cluster: its ARN.
        on_stop: told how many tasks are stopped or still stopping, each time that more of them are found.
        reason: what ECS shows as the tasks' reason.
        deadline_seconds: after this long the wait is given up.
        pause_seconds: between two looks.

    Raises:
        TasksStillRunning: some did not end in time.
    """
    given_up_at = time.monotonic() + deadline_seconds
    seen: set[str] = set()
    while tasks := list(_tasks_left(ecs, cluster)):
        for task in tasks:
            if task["desiredStatus"] != _GONE:
                ecs.stop_task(cluster=cluster, task=task["taskArn"], reason=reason)
        found = {str(task["taskArn"]) for task in tasks}
        if more := found - seen:
            on_stop(len(more))
        seen |= found
        if time.monotonic() > given_up_at:
            raise TasksStillRunning(
                f"{len(tasks)} tasks of the cluster {cluster} have not ended within {deadline_seconds:.0f} seconds of "
                f"being told to stop, {tasks[0]['taskArn']} among them: look at them in the ECS console, then give the "
                "same command again"
            )
        time.sleep(pause_seconds)
    return len(seen)


def _tasks_left(ecs: Any, cluster: str) -> Iterator[dict[str, Any]]:
    """Yield the tasks that have not ended: those that work, and those that are on their way out."""
    # A task that was told to stop is listed as stopped at once, while it still keeps the cluster from being deleted.
    for status in ("RUNNING", _GONE):
        try:
            for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=status):
                if page["taskArns"]:  # at most 100, which is what one call describes
                    described = ecs.describe_tasks(cluster=cluster, tasks=page["taskArns"])["tasks"]
                    yield from (task for task in described if task["lastStatus"] != _GONE)
        except ClientError as error:
            if aws_error_code(error) != _NO_CLUSTER:
                raise
