"""Kills a container that exceeds the memory limit in its task definition, as Fargate does. MiniStack sets no limit.

A Docker engine enforces the limit itself. Here, the memory of a container's processes is checked several times a
second.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from ministack.services import ecs

from deployment.local.emulator.containers import Container
from deployment.local.processes import kill_group
from tests.emulator.memory_use import exceeds

# docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
_LIMIT_LABEL = "sluice.memory-limit-bytes"
_killed: set[str] = set()


def install(_state: Path) -> None:
    """Set a memory limit for each container, and report the containers that were killed because they exceeded it."""
    build, mark_stopped, start = ecs._build_run_kwargs, ecs._mark_task_stopped, Container.start

    def with_limit(container: dict[str, Any], definition: dict[str, Any], *rest: Any) -> dict[str, Any]:
        keywords: dict[str, Any] = build(container, definition, *rest)
        memory_mib = container.get("memory") or definition.get("memory")
        if memory_mib:
            keywords["labels"][_LIMIT_LABEL] = str(int(memory_mib) * 1024**2)
        return keywords

    def start_watched(container: Container, command: list[str] | None, environment: dict[str, str]) -> None:
        start(container, command, environment)
        if _LIMIT_LABEL in container.labels:
            threading.Thread(target=_watch, args=(container,), daemon=True).start()

    def report_reason(task_arn: str, task: dict[str, Any], *rest: Any, **more: Any) -> Any:
        for container, docker_id in zip(task.get("containers", []), task.get("_docker_ids") or [], strict=False):
            if docker_id in _killed:
                container["reason"] = OUT_OF_MEMORY
        return mark_stopped(task_arn, task, *rest, **more)

    ecs._build_run_kwargs, ecs._mark_task_stopped = with_limit, report_reason
    Container.start = start_watched  # type: ignore[method-assign,assignment]


def _watch(container: Container) -> None:
    pid = container.pid
    if pid is not None and exceeds(pid, int(container.labels[_LIMIT_LABEL]), lambda: container.status != "running"):
        _killed.add(container.id)
        kill_group(pid)
