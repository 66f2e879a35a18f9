"""The work pools for runs that a person starts: processes on the worker's machine, or ECS tasks of the stack.

Runs of the ECS pool use a task definition of the stack, so that no run registers a new one. It is not the one for
drains, because drains count the tasks of theirs. A worker starts the tasks:

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
    "description": "In addition to those that every run gets.",
    "additionalProperties": {"type": "string"},
}
_RUNS_AT_ONCE = {LOCAL: 4, ECS: 10}  # further runs wait in the pool


def work_pool(names: PrefectNames, kind: str, outputs: Mapping[str, str]) -> WorkPoolCreate:
    """Return a stack's work pool of the kind `local` or `ecs`, from the stack's outputs."""
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


# For every flow run, even one that no worker starts, the server validates the whole schema of a pool's variables, and
# again for each default. With the worker type's own schema, that is a third of the cost of recording an upload in bulk.
# So only what may differ from run to run is a variable, and no variable has a default.


def local_template() -> dict[str, Any]:
    """Return the job template for process workers; the worker sets the run's name, labels and command."""
    variables = {"type": "object", "properties": {"env": _ENVIRONMENT}}
    return {"variables": variables, "job_configuration": {"env": "{{ env }}"}}


def ecs_template(outputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the job template for ECS workers, with cluster, network and task definition from the stack's outputs."""
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
