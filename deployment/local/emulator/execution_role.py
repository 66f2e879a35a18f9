"""Starts a task only if its execution role has the permissions that ECS needs. MiniStack always starts it.

docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html
"""

from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import ecs

from deployment.local.emulator.permissions import role_allows

# docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
_LOG_ACTIONS = ("logs:CreateLogStream", "logs:PutLogEvents")


class ExecutionRoleRefused(Exception):
    """The task's execution role lacks a permission that ECS needs, so the task cannot start."""


def install() -> None:
    build = ecs._build_run_kwargs

    def prepared(container: dict[str, Any], definition: dict[str, Any], *rest: Any) -> dict[str, Any]:
        _check_execution_role(container, definition)
        keywords: dict[str, Any] = build(container, definition, *rest)
        return keywords

    ecs._build_run_kwargs = prepared


def _check_execution_role(container: dict[str, Any], definition: dict[str, Any]) -> None:
    role = definition.get("executionRoleArn")
    needed: list[tuple[str, str, str]] = []
    log = container.get("logConfiguration") or {}
    if log.get("logDriver") == "awslogs":
        group, prefix = log["options"]["awslogs-group"], log["options"].get("awslogs-stream-prefix", "")
        arn = f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{group}:log-stream:{prefix}/"
        needed += [(action, arn, "failed to initialize logging driver") for action in _LOG_ACTIONS]
    for secret in container.get("secrets") or []:
        if ":secretsmanager:" in secret["valueFrom"]:
            arn = ":".join(secret["valueFrom"].split(":")[:7])  # the rest names a field of the secret
            needed.append(("secretsmanager:GetSecretValue", arn, "unable to pull secrets"))
    for action, arn, trouble in needed:
        if not role or not role_allows(role, "ecs", action, arn, asked_by="ecs"):
            raise ExecutionRoleRefused(
                f"the execution role {role} is not allowed to {action} on {arn}: {trouble}: AccessDeniedException"
            )
