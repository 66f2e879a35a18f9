"""Work pools run flows in the stack's network, with its task definition and a few variables."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from blocks.prefect_names import PrefectNames
from deployment.prefect_setup.work_pools import ecs_template, local_template, work_pool

OUTPUTS = {
    "SubnetIds": "subnet-1,subnet-2",
    "SecurityGroupIds": "sg-1",
    "AssignPublicIp": "DISABLED",
    "OperatorTaskDefinitionArn": "arn:aws:ecs:eu-central-1:123456789012:task-definition/sluice-operator:7",
    "ClusterArn": "arn:aws:ecs:eu-central-1:123456789012:cluster/sluice",
    "ContainerName": "drain",
    "TaskRoleArn": "arn:aws:iam::123456789012:role/sluice-TaskRole",
}


def request() -> dict[str, Any]:
    found: dict[str, Any] = ecs_template(OUTPUTS)["job_configuration"]["task_run_request"]
    return found


def test_a_run_is_a_task_in_the_stacks_network() -> None:
    network = request()["networkConfiguration"]["awsvpcConfiguration"]
    assert network == {"subnets": ["subnet-1", "subnet-2"], "securityGroups": ["sg-1"], "assignPublicIp": "DISABLED"}
    (container,) = request()["overrides"]["containerOverrides"]
    assert container["name"] == "drain", "the stack's container, not one that the worker would add"


def test_a_run_uses_the_task_definition_of_the_stack_and_describes_no_other() -> None:
    """If runs described a task definition, each change to a run's CPU or memory would register a new revision."""
    assert request()["taskDefinition"] == OUTPUTS["OperatorTaskDefinitionArn"]
    job = ecs_template(OUTPUTS)["job_configuration"]
    assert job["cluster"] == request()["cluster"] == OUTPUTS["ClusterArn"]
    assert "task_definition" not in job


@pytest.mark.parametrize("template", [local_template(), ecs_template(OUTPUTS)])
def test_each_variable_is_used_and_described_and_has_no_default(template: dict[str, Any]) -> None:
    """The Prefect server validates the variables for every run, so none is unused or has a default."""
    variables = template["variables"]["properties"]
    assert all(variable["title"] and variable["description"] for variable in variables.values())
    assert not any("default" in variable for variable in variables.values())
    asked = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))
    assert set(variables) == asked


def test_each_work_pool_has_the_type_of_its_worker() -> None:
    pools = [work_pool(PrefectNames("trial"), kind, OUTPUTS) for kind in ("local", "ecs")]
    assert [(pool.name, pool.type) for pool in pools] == [
        ("sluice-trial-local", "process"),
        ("sluice-trial-ecs", "ecs"),
    ]
