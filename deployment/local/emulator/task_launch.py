"""What Fargate does around a task and MiniStack does not: the execution role's permissions, and stopTimeout."""

from __future__ import annotations

from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import ecs

from deployment.local.emulator.containers import STOP_TIMEOUT_LABEL
from deployment.local.emulator.decisions import Decisions

# docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
_LOG_ACTIONS = ("logs:CreateLogStream", "logs:PutLogEvents")
# docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html, stopTimeout
_DEFAULT_STOP_TIMEOUT_SECONDS = 30


class ExecutionRoleRefused(Exception):
    """The task's execution role may not do what ECS does in its name; the task fails to start."""


def install(decisions: Decisions) -> None:
    """Replace how MiniStack prepares a container."""
    build = ecs._build_run_kwargs

    def prepared(container: dict[str, Any], definition: dict[str, Any], *rest: Any) -> dict[str, Any]:
        keywords: dict[str, Any] = build(container, definition, *rest)
        seconds = container.get("stopTimeout") or _DEFAULT_STOP_TIMEOUT_SECONDS
        keywords["labels"][STOP_TIMEOUT_LABEL] = str(seconds)
        _check_execution_role(decisions, container, definition)
        return keywords

    ecs._build_run_kwargs = prepared


def _check_execution_role(decisions: Decisions, container: dict[str, Any], definition: dict[str, Any]) -> None:
    log = container.get("logConfiguration") or {}
    if log.get("logDriver") != "awslogs":
        return
    group = log["options"]["awslogs-group"]
    prefix = log["options"].get("awslogs-stream-prefix", "")
    stream = f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{group}:log-stream:{prefix}/"
    role = definition.get("executionRoleArn")
    for action in _LOG_ACTIONS:
        if not role or not decisions.allows(role, "ecs", action, stream, asked_by="ecs"):
            raise ExecutionRoleRefused(
                f"the execution role {role} may not {action} on {group}: "
                "failed to initialize logging driver: AccessDeniedException"
            )
