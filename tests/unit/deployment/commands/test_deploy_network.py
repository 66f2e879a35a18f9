"""`sluice deploy` refuses to change a network that executions or tasks are using."""

from __future__ import annotations

from typing import Any

import pytest

from deployment.commands.deploy import NETWORK, NetworkInUse, check_network

STACK = {
    "Parameters": [{"ParameterKey": name, "ParameterValue": ""} for name in NETWORK],
    "Outputs": [
        {"OutputKey": "StateMachineArn", "OutputValue": "arn:machine"},
        {"OutputKey": "ClusterArn", "OutputValue": "arn:cluster"},
    ],
}


class Services:
    """Fake clients for Step Functions and ECS, with the given numbers of running executions and tasks."""

    def __init__(self, *, executions: int, tasks: int) -> None:
        self._executions, self._tasks = executions, tasks

    def __call__(self, _: str) -> Services:
        return self

    def list_executions(self, **_: object) -> dict[str, Any]:
        return {"executions": [{}] * self._executions}

    def list_tasks(self, **_: object) -> dict[str, Any]:
        return {"taskArns": ["arn:task"] * self._tasks}


@pytest.mark.parametrize(("executions", "tasks"), [(1, 0), (0, 1)])
@pytest.mark.parametrize("name", NETWORK)
def test_a_network_that_executions_or_tasks_use_is_not_changed(name: str, executions: int, tasks: int) -> None:
    """A running execution keeps its definition, so it would keep launching tasks in the old network."""
    with pytest.raises(NetworkInUse):
        check_network(Services(executions=executions, tasks=tasks), STACK, {name: "new"})


@pytest.mark.parametrize("asked", [{}, {"SubnetIds": ""}, {"LogRetentionDays": "7"}])
def test_other_parameters_may_change_while_uploads_are_processed(asked: dict[str, str]) -> None:
    check_network(Services(executions=1, tasks=1), STACK, asked)


def test_an_idle_or_new_stack_may_get_another_network() -> None:
    check_network(Services(executions=0, tasks=0), STACK, {"SubnetIds": "subnet-1"})
    check_network(Services(executions=1, tasks=1), None, {"SubnetIds": "subnet-1"})
