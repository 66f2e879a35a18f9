"""The tasks of a cluster are stopped before it is deleted."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from deployment.aws.running_tasks import TasksStillRunning, end_tasks

CLUSTER = "arn:aws:ecs:eu-central-1:123456789012:cluster/sluice"


class Ecs:
    """Fake ECS client for a cluster whose tasks end `looks` polls after they were stopped. While tasks end, those in
    `later` start."""

    def __init__(self, *names: str, looks: int = 2, later: tuple[str, ...] = (), exists: bool = True) -> None:
        self._left = dict.fromkeys(names, looks)
        self._looks, self._later, self._exists = looks, list(later), exists
        self.stopped: list[str] = []

    def stopping(self, name: str) -> Ecs:
        """Mark one task as already stopping."""
        self.stopped.append(name)
        return self

    def get_paginator(self, _: str) -> Ecs:
        return self

    def paginate(self, *, cluster: str, desiredStatus: str) -> list[dict[str, list[str]]]:  # noqa: N803 (boto3's)
        assert cluster == CLUSTER
        if not self._exists:
            raise ClientError({"Error": {"Code": "ClusterNotFoundException"}}, "ListTasks")
        names = [name for name in self._left if (name in self.stopped) == (desiredStatus == "STOPPED")]
        return [{"taskArns": [name]} for name in names] or [{"taskArns": []}]

    def describe_tasks(self, *, cluster: str, tasks: list[str]) -> dict[str, list[dict[str, Any]]]:
        assert cluster == CLUSTER
        return {"tasks": [self._described(name) for name in tasks]}

    def _described(self, name: str) -> dict[str, Any]:
        if name not in self.stopped:
            return {"taskArn": name, "desiredStatus": "RUNNING", "lastStatus": "RUNNING"}
        self._left[name] -= 1
        ended = self._left[name] <= 0
        if not ended and self._later:
            self._left[self._later.pop()] = self._looks
        return {"taskArn": name, "desiredStatus": "STOPPED", "lastStatus": "STOPPED" if ended else "DEPROVISIONING"}

    def get_waiter(self, name: str) -> Ecs:
        assert name == "tasks_stopped"
        return self

    def wait(self, *, cluster: str, tasks: list[str], WaiterConfig: dict[str, Any]) -> None:  # noqa: N803 (boto3's)
        """Act like boto3's waiter, but do not pause between polls."""
        for _ in range(WaiterConfig["MaxAttempts"]):
            described: Any = self.describe_tasks(cluster=cluster, tasks=tasks)
            if all(task["lastStatus"] == "STOPPED" for task in described["tasks"]):
                return
        raise WaiterError("TasksStopped", "Max attempts exceeded", described)

    def stop_task(self, *, cluster: str, task: str, reason: str) -> None:
        assert (cluster, reason) == (CLUSTER, "enough")
        self.stopped.append(task)


def ended(ecs: Ecs, deadline_seconds: float = 60.0) -> tuple[int, list[int]]:
    """Return how many tasks end_tasks() waited for, and the numbers of tasks that it reported in the meantime."""
    said: list[int] = []
    count = end_tasks(ecs, CLUSTER, said.append, reason="enough", deadline_seconds=deadline_seconds, delay_seconds=0.01)
    return count, said


def test_every_task_is_stopped_once_and_waited_for() -> None:
    ecs = Ecs("a", "b", looks=5)
    assert ended(ecs) == (2, [2])
    assert ecs.stopped == ["a", "b"]
    assert all(left <= 0 for left in ecs._left.values())


def test_a_task_that_somebody_else_stopped_is_waited_for_but_not_stopped_again() -> None:
    ecs = Ecs("a").stopping("a")
    assert ended(ecs) == (1, [1])
    assert ecs.stopped == ["a"]


def test_a_task_that_starts_while_others_end_is_stopped_too() -> None:
    ecs = Ecs("a", later=("b",))
    assert ended(ecs) == (2, [1, 1])
    assert ecs.stopped == ["a", "b"]


@pytest.mark.parametrize("ecs", [Ecs(), Ecs(exists=False)])
def test_an_empty_or_missing_cluster_is_not_waited_for(ecs: Ecs) -> None:
    assert ended(ecs) == (0, [])


def test_a_task_that_does_not_end_in_time_is_named() -> None:
    with pytest.raises(TasksStillRunning) as raised:
        ended(Ecs("stuck", looks=1_000_000), deadline_seconds=0.05)
    assert "stuck" in str(raised.value)


def test_a_denied_call_is_not_mistaken_for_a_cluster_without_tasks() -> None:
    class Refusing(Ecs):
        def paginate(self, **_: Any) -> list[dict[str, list[str]]]:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "ListTasks")

    with pytest.raises(ClientError):
        ended(Refusing())
