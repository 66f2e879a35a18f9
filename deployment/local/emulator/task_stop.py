"""Stops a task as ECS does: the task gets SIGTERM and, after its stopTimeout, SIGKILL. Once the task has ended, ECS
reports it as STOPPED, with its exit code.

MiniStack immediately returns STOPPED with exit code 0, stops the container only afterwards, and ignores stopTimeout.
docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html
"""

import logging
from typing import Any

from ministack import app
from ministack.core.concurrency import resource_lock
from ministack.core.responses import get_account_id, get_region, json_response, request_scope
from ministack.services import ecs

from deployment.local.emulator.containers import STOP_TIMEOUT_LABEL

# docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html, stopTimeout
_DEFAULT_STOP_TIMEOUT_SECONDS = 30
LOG = logging.getLogger("sluice.task_stop")


def install() -> None:
    stop_at_once, build = ecs._stop_task, ecs._build_run_kwargs

    def labelled(container: dict[str, Any], *rest: Any) -> dict[str, Any]:
        keywords: dict[str, Any] = build(container, *rest)
        seconds = container.get("stopTimeout") or _DEFAULT_STOP_TIMEOUT_SECONDS
        keywords["labels"][STOP_TIMEOUT_LABEL] = str(seconds)
        return keywords

    def stop(request: dict[str, Any]) -> Any:
        cluster = ecs._resolve_cluster_name(request.get("cluster", "default"))
        task = ecs._resolve_task(request.get("task", ""), cluster) if cluster else None
        if task is None or task["lastStatus"] == "STOPPED":
            return stop_at_once(request)  # called only for its response
        containers = _take_containers(task)
        if containers:
            arguments = (task, containers, request.get("reason", "Task stopped by user"))
            scope = (get_account_id(), get_region())
            app.spawn_background(_end, *scope, *arguments, thread_name="sluice-stop-task")
        elif task["desiredStatus"] != "STOPPED":
            return stop_at_once(request)  # no container is running yet
        return json_response({"task": ecs._sanitize(task)})

    ecs._build_run_kwargs = labelled
    ecs._stop_task = stop
    ecs._ACTION_MAP["StopTask"] = stop  # the map contains the original function


def stop_in_its_time(container: Any) -> None:
    """Stop a container with SIGTERM and, after the stopTimeout in its label, with SIGKILL."""
    container.stop(timeout=int(container.labels[STOP_TIMEOUT_LABEL]))


def _take_containers(task: dict[str, Any]) -> list[str]:
    """Mark a task as stopping, and return the IDs of its containers. A second call returns an empty list."""
    with resource_lock("ecs-task", task["taskArn"]):
        containers = list(task.get("_docker_ids") or [])
        if containers:
            task["_docker_ids"] = []
            task["desiredStatus"] = "STOPPED"  # otherwise MiniStack assumes that the task ended by itself
    return containers


def _end(account: str, region: str, task: dict[str, Any], container_ids: list[str], reason: str) -> None:
    with request_scope(account, region):
        client = ecs._get_docker()
        for index, container_id in enumerate(container_ids):
            exit_code = _stopped(client, container_id)
            with resource_lock("ecs-task", task["taskArn"]):
                task["containers"][index]["exitCode"] = exit_code
        with resource_lock("ecs-task", task["taskArn"]):
            task["desiredStatus"] = "RUNNING"  # otherwise MiniStack does not mark it as stopped
        ecs._mark_task_stopped(task["taskArn"], task, reason, "UserInitiated")
        for container_id in container_ids:
            ecs._remove_docker_container(client, container_id)
        ecs._cleanup_task_resources(task, client)


def _stopped(client: Any, container_id: str) -> int | None:
    """Stop a container; return its exit code, or None if the engine does not report one."""
    try:
        container = client.containers.get(container_id)
        stop_in_its_time(container)
        return int(container.wait()["StatusCode"])
    except Exception as error:  # noqa: BLE001 (the engine's errors have no base class that is known here)
        LOG.warning("the container %s cannot be stopped: %s", container_id[:12], error)
        return None
