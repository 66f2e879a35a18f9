"""Defines the work pools for runs that a user starts: processes on the worker's machine, or ECS tasks of the stack.

Runs in the ECS pool use a task definition of the stack, so that no run registers a new one. Drains have a separate task
definition, because they count the tasks that use it. A worker starts the tasks:

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
    "description": "Variables in addition to those that every run gets.",
    "additionalProperties": {"type": "string"},
}
_RUNS_AT_ONCE = {LOCAL: 4, ECS: 10}  # the number of concurrent runs; further runs wait in the pool


def work_pool(names: PrefectNames, kind: str, outputs: Mapping[str, str]) -> WorkPoolCreate:
    """Return the definition of a stack's work pool, whose `kind` is `local` or `ecs`, from the stack's outputs."""
    if kind == LOCAL:
        description = f"Processes on the worker's machine, for the stack {names.stack}."
        job_type, template = ProcessWorker.type, local_template()
    else:
        description = f"ECS tasks of the stack {names.stack}, with its task definition, in its cluster and network."
        job_type, template = "ecs", ecs_template(outputs)
    return WorkPoolCreate(
        name=names.pool(kind),
        type=job_type,
        description=description,
        base_job_template=template,
        concurrency_limit=_RUNS_AT_ONCE[kind],
    )


# For every flow run, even one that no worker starts, the server validates the whole schema of a pool's variables once,
# and then again for each default. With the schema of the worker type, that takes a third of the CPU time of recording
# an upload in bulk. Therefore, only settings that may differ between runs are variables, and no variable has a default.


def local_template() -> dict[str, Any]:
    """Return the job template for process workers. The worker itself sets a run's name, labels and command."""
    variables = {"type": "object", "properties": {"env": _ENVIRONMENT}}
    return {"variables": variables, "job_configuration": {"env": "{{ env }}"}}


def ecs_template(outputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the job template for ECS workers, with the cluster, network and task definition in the stack's outputs."""
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
                    "CPU", "In units of 1/1024 vCPU; by default, as in the task definition.", "integer", minimum=256
                ),
                "memory": _variable("Memory", "In MiB; by default, as in the task definition.", "integer", minimum=512),
                "task_role_arn": _variable("Task role", "The role's ARN; by default, as in the task definition."),
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
