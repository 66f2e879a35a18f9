"""What Fargate does around a task and MiniStack does not: the execution role's permissions, stopTimeout, and secrets of
a task definition that CloudFormation made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import ecs
from ministack.services.cloudformation import provisioners

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
    provisioners._normalize_container_defs = _with_secrets(provisioners._normalize_container_defs)


def _with_secrets(normalize: Callable[[Any], list[dict[str, Any]]]) -> Callable[[Any], list[dict[str, Any]]]:
    """MiniStack 1.5.33 turns a template's container definitions into the API's, all but their secrets."""

    def normalized(definitions: Any) -> list[dict[str, Any]]:
        result = normalize(definitions)
        for definition in result:
            secrets = definition.get("secrets") or []
            definition["secrets"] = [{name[0].lower() + name[1:]: one[name] for name in one} for one in secrets]
        return result

    return normalized


def _check_execution_role(decisions: Decisions, container: dict[str, Any], definition: dict[str, Any]) -> None:
    role = definition.get("executionRoleArn")
    needed = [(action, arn, "failed to initialize logging driver") for action, arn in _logging(container)]
    for secret in container.get("secrets") or []:
        if ":secretsmanager:" in secret["valueFrom"]:
            arn = ":".join(secret["valueFrom"].split(":")[:7])  # what follows names a field of the secret
            needed.append(("secretsmanager:GetSecretValue", arn, "unable to pull secrets"))
    for action, arn, trouble in needed:
        if not role or not decisions.allows(role, "ecs", action, arn, asked_by="ecs"):
            raise ExecutionRoleRefused(
                f"the execution role {role} may not {action} on {arn}: {trouble}: AccessDeniedException"
            )


def _logging(container: dict[str, Any]) -> Iterator[tuple[str, str]]:
    log = container.get("logConfiguration") or {}
    if log.get("logDriver") != "awslogs":
        return
    group = log["options"]["awslogs-group"]
    prefix = log["options"].get("awslogs-stream-prefix", "")
    for action in _LOG_ACTIONS:
        yield action, f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{group}:log-stream:{prefix}/"
