"""Kills a container above its task definition's memory limit, as Fargate does; MiniStack sets no limit.

A Docker engine enforces the limit itself. Without one, the memory of a container's processes is checked several times
a second (memory_use.py).
"""

from __future__ import annotations

import contextlib
from typing import Any

from ministack.services import ecs

# docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"


def install() -> None:
    """Start containers with a memory limit, and report those that were killed."""
    build, mark_stopped = ecs._build_run_kwargs, ecs._mark_task_stopped

    def with_limit(container: dict[str, Any], definition: dict[str, Any], *rest: Any) -> dict[str, Any]:
        keywords: dict[str, Any] = build(container, definition, *rest)
        memory_mib = container.get("memory") or definition.get("memory")
        if memory_mib:
            keywords["mem_limit"] = f"{memory_mib}m"
        return keywords

    def report_reason(task_arn: str, task: dict[str, Any], *rest: Any, **more: Any) -> Any:
        for container, docker_id in zip(task.get("containers", []), task.get("_docker_ids") or [], strict=False):
            if _was_killed(docker_id):
                container["reason"] = OUT_OF_MEMORY
        return mark_stopped(task_arn, task, *rest, **more)

    ecs._build_run_kwargs, ecs._mark_task_stopped = with_limit, report_reason


def _was_killed(docker_id: str) -> bool:
    with contextlib.suppress(Exception):  # the container is gone, or the engine does not answer
        return bool(ecs._get_docker().containers.get(docker_id).attrs["State"].get("OOMKilled"))
    return False
