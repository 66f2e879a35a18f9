"""The work pools for manual runs: processes on the worker's machine, or ECS tasks of the stack.

The tasks of the ECS pool have a task definition of the stack's, so no run registers another one. It is not the drains'
own, whose tasks are counted. A worker starts them:

    prefect worker start --pool sluice-ecs --type ecs
"""

from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.actions import WorkPoolCreate
from prefect.workers.process import ProcessWorker

from blocks.prefect_names import PrefectNames

LOCAL, ECS = "local", "ecs"
KINDS = (LOCAL, ECS)
_ENVIRONMENT = {
    "type": "object",
    "title": "Environment variables",
    "description": "Besides those that the run gets anyway.",
    "additionalProperties": {"type": "string"},
}
_RUNS_AT_ONCE = {LOCAL: 4, ECS: 10}  # further ones wait in the pool


def work_pool(names: PrefectNames, kind: str, outputs: Mapping[str, str]) -> WorkPoolCreate:
    """Return one of a stack's pools: `local` or `ecs`."""
    if kind == LOCAL:
        description = f"Processes on the worker's machine, for the stack {names.stack}."
        job_type, template = ProcessWorker.type, local_template()
    else:
        description = f"Tasks of the stack {names.stack}, with its own task definition, on its cluster and network."
        job_type, template = "ecs", ecs_template(outputs)
    return WorkPoolCreate(
        name=names.pool(kind),
        type=job_type,
        description=description,
        base_job_template=template,
        concurrency_limit=_RUNS_AT_ONCE[kind],
    )


# The server validates the whole schema of a pool's variables for every flow run, again for each default, and also
# for runs that no worker starts: a third of the cost of an upload that is recorded in bulk, with the worker's own
# schema. So only what may differ from run to run is a variable, and none has a default.


def local_template() -> dict[str, Any]:
    """Return a process worker's job template; the worker itself sets the run's name, labels and command."""
    variables = {"type": "object", "properties": {"env": _ENVIRONMENT}}
    return {"variables": variables, "job_configuration": {"env": "{{ env }}"}}


def ecs_template(outputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the ECS worker's job template, with what the stack decides filled in."""
    network = {
        "subnets": outputs["SubnetIds"].split(","),
        "securityGroups": outputs["SecurityGroupIds"].split(","),
        "assignPublicIp": outputs["AssignPublicIp"],
    }
    return {
        "variables": {
            "type": "object",
            "properties": {
                "env": _ENVIRONMENT,
                "cpu": _variable(
                    "CPU", "In units of 1/1024 vCPU; empty: the task definition's.", "integer", minimum=256
                ),
                "memory": _variable("Memory", "In MiB; empty: the task definition's.", "integer", minimum=512),
                "task_role_arn": _variable("Task role", "Empty: the task definition's."),
            },
        },
        "job_configuration": {
            "env": "{{ env }}",
            "cluster": outputs["ClusterArn"],
            "container_name": outputs["ContainerName"],
            "task_start_timeout_seconds": 600,
            "task_run_request": {
                "launchType": "FARGATE",
                "cluster": outputs["ClusterArn"],
                "taskDefinition": outputs["OperatorTaskDefinitionArn"],
                "networkConfiguration": {"awsvpcConfiguration": network},
                "propagateTags": "TASK_DEFINITION",
                "overrides": {
                    "cpu": "{{ cpu }}",
                    "memory": "{{ memory }}",
                    "taskRoleArn": "{{ task_role_arn }}",
                    "containerOverrides": [
                        {
                            "name": outputs["ContainerName"],
                            "environment": "{{ env }}",
                            "cpu": "{{ cpu }}",
                            "memory": "{{ memory }}",
                        }
                    ],
                },
            },
        },
    }


def _variable(title: str, description: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"type": kind, "title": title, "description": description, **more}
