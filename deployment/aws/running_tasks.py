"""Stops all ECS tasks on a stack's cluster, because CloudFormation cannot delete a cluster that still has tasks.

docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteCluster.html (ClusterContainsTasksException)
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError, WaiterError

from blocks.aws_errors import aws_error_code
from flows.refinery.errors import TransientError

DEADLINE_SECONDS = 300.0  # a container may run for 120 seconds after SIGTERM (stopTimeout); then its network is removed
_DELAY_SECONDS = 2.0
_TASKS_PER_CALL = 100  # the maximum that DescribeTasks accepts
_STOPPED = "STOPPED"


class TasksStillRunning(TransientError):
    """The stack's tasks did not stop within a few minutes, so the stack was not deleted."""


def end_tasks(
    ecs: Any,
    cluster: str,
    on_stop: Callable[[int], None],
    *,
    reason: str,
    deadline_seconds: float = DEADLINE_SECONDS,
    delay_seconds: float = _DELAY_SECONDS,
) -> int:
    """Stop every task on the cluster, wait until none is left, and return the number of stopped tasks.

    A stopped task returns its messages to the queue, so no upload is lost. If the cluster does not exist, there are no
    tasks to stop.

    Args:
        ecs: a boto3 client for ECS.
        cluster: the cluster's ARN.
        on_stop: called with the number of newly found tasks, each time there are some.
        reason: the stop reason that ECS shows for the tasks.
        deadline_seconds: how long to wait in total.
        delay_seconds: how long to wait between two checks.

    Raises:
        TasksStillRunning: some tasks did not stop in time.
    """
    deadline = time.monotonic() + deadline_seconds
    seen: set[str] = set()
    while tasks := list(_tasks_left(ecs, cluster)):
        for task in tasks:
            if task["desiredStatus"] != _STOPPED:
                ecs.stop_task(cluster=cluster, task=task["taskArn"], reason=reason)
        arns = [str(task["taskArn"]) for task in tasks]
        if more := set(arns) - seen:
            on_stop(len(more))
        seen |= set(arns)
        looks = max(1, int((deadline - time.monotonic()) / delay_seconds))
        _wait_until_stopped(ecs, cluster, arns, {"Delay": delay_seconds, "MaxAttempts": looks})
    return len(seen)


def _wait_until_stopped(ecs: Any, cluster: str, arns: list[str], config: dict[str, float]) -> None:
    waiter = ecs.get_waiter("tasks_stopped")
    for first in range(0, len(arns), _TASKS_PER_CALL):
        try:
            waiter.wait(cluster=cluster, tasks=arns[first : first + _TASKS_PER_CALL], WaiterConfig=config)
        except WaiterError as error:
            described: dict[str, Any] = dict(error.last_response)
            if "tasks" not in described:
                raise
            left = [task["taskArn"] for task in described["tasks"] if task["lastStatus"] != _STOPPED]
            raise TasksStillRunning(
                f"{len(left)} tasks in the cluster {cluster} did not stop in time: {', '.join(left)}; check them in "
                "the ECS console, then run the same command again"
            ) from error


def _tasks_left(ecs: Any, cluster: str) -> Iterator[dict[str, Any]]:
    """Yield the tasks that have not stopped yet, as ECS describes them: those that are running or stopping."""
    # ECS lists a stopping task as STOPPED immediately, although the task still prevents the cluster's deletion.
    for desired_status in ("RUNNING", _STOPPED):
        try:
            for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=desired_status):
                if page["taskArns"]:  # at most 100, which one call can describe
                    described = ecs.describe_tasks(cluster=cluster, tasks=page["taskArns"])["tasks"]
                    yield from (task for task in described if task["lastStatus"] != _STOPPED)
        except ClientError as error:
            if aws_error_code(error) != "ClusterNotFoundException":
                raise
