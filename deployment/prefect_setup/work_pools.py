"""Makes the work pool that runs started by hand are taken from: local processes, or ECS tasks of the stack.

    python -m deployment.prefect_setup.work_pools ecs --stack sluice

Which of the two a deployment uses is told by SLUICE_WORK_POOL when `prefect deploy --all` reads prefect.yaml. The ECS
pool's tasks are of the stack's own task definition, so no run registers another one; a worker of type ecs starts them:

    prefect worker start --pool ecs --type ecs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import boto3
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from deployment.aws.deploy_stack import Clients, stack_outputs

LOCAL_POOL = "local"
ECS_POOL = "ecs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or update one pool; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployment.prefect_setup.work_pools", description=__doc__)
    parser.add_argument("pool", choices=(LOCAL_POOL, ECS_POOL))
    parser.add_argument("--stack", default="sluice", help="the stack whose outputs fill the ECS pool in")
    given = parser.parse_args(arguments)
    if given.pool == LOCAL_POOL:
        make_pool(WorkPoolCreate(name=LOCAL_POOL, type="process", description="Processes beside the worker."))
    else:
        clients = Clients(boto3.client("cloudformation"), boto3.client("s3"), boto3.client("sts"))
        make_pool(ecs_pool(stack_outputs(clients, given.stack)))
    print(f"work pool {given.pool} is ready")  # noqa: T201 (a command's output)
    return 0


def make_pool(pool: WorkPoolCreate) -> None:
    """Make the pool, or bring it up to date."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool, overwrite=True)


def ecs_pool(outputs: Mapping[str, str]) -> WorkPoolCreate:
    """Return the pool whose runs are tasks of the stack that has these outputs."""
    return WorkPoolCreate(
        name=ECS_POOL,
        type="ecs",
        description="Tasks of the stack's own task definition, on its cluster and network.",
        base_job_template=ecs_template(outputs),
    )


def ecs_template(outputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the ECS worker's job template, with what the stack decides filled in.

    Only what may differ from run to run is left as a variable. That is also what makes runs cheap: the server validates
    the whole schema of variables for every run, and the worker's own one takes it a tenth of a second.
    """
    network = {
        "subnets": outputs["SubnetIds"].split(","),
        "securityGroups": outputs["SecurityGroupIds"].split(","),
        "assignPublicIp": outputs["AssignPublicIp"],
    }
    return {
        "variables": {
            "type": "object",
            "properties": {
                "name": _variable("Name", "Given to the infrastructure."),
                "env": _mapping("Environment variables", "Besides those of the task definition."),
                "labels": _mapping("Labels", "Become the task's tags."),
                "command": _variable("Command", "Empty: the run's own."),
                "cpu": _number("CPU", "In units of 1/1024 vCPU; empty: the task definition's.", minimum=256),
                "memory": _number("Memory", "In MiB; empty: the task definition's.", minimum=512),
                "task_definition_arn": _variable(
                    "Task definition", "It holds image, roles, secrets and log.", outputs["TaskDefinitionArn"]
                ),
                "cluster": _variable("Cluster", "Where tasks run.", outputs["ClusterArn"]),
                "task_role_arn": _variable("Task role", "Empty: the task definition's.", outputs["TaskRoleArn"]),
            },
        },
        "job_configuration": {
            "name": "{{ name }}",
            "env": "{{ env }}",
            "labels": "{{ labels }}",
            "command": "{{ command }}",
            "cluster": "{{ cluster }}",
            "container_name": outputs["ContainerName"],
            "task_start_timeout_seconds": 600,
            "task_run_request": {
                "launchType": "FARGATE",
                "cluster": "{{ cluster }}",
                "taskDefinition": "{{ task_definition_arn }}",
                "networkConfiguration": {"awsvpcConfiguration": network},
                "propagateTags": "TASK_DEFINITION",
                "tags": "{{ labels }}",
                "overrides": {
                    "cpu": "{{ cpu }}",
                    "memory": "{{ memory }}",
                    "taskRoleArn": "{{ task_role_arn }}",
                    "containerOverrides": [
                        {
                            "name": outputs["ContainerName"],
                            "command": "{{ command }}",
                            "environment": "{{ env }}",
                            "cpu": "{{ cpu }}",
                            "memory": "{{ memory }}",
                        }
                    ],
                },
            },
        },
    }


def _variable(title: str, description: str, default: str | None = None) -> dict[str, Any]:
    variable: dict[str, Any] = {"type": "string", "title": title, "description": description}
    return variable | ({"default": default} if default else {})


def _number(title: str, description: str, *, minimum: int) -> dict[str, Any]:
    return {"type": "integer", "title": title, "description": description, "minimum": minimum}


def _mapping(title: str, description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "title": title,
        "description": description,
        "additionalProperties": {"type": "string"},
    }


if __name__ == "__main__":
    sys.exit(main())
