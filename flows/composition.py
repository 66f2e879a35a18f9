"""Read the settings, and assemble the parts of the pipeline from them, for all entry points."""

import json
import logging
import os
import signal
import threading
import urllib.request
from collections.abc import Mapping
from functools import cache, partial
from http.client import HTTPException
from typing import Any

from prefect import runtime

from blocks.drains import Drains
from blocks.object_store import ObjectStore
from blocks.settings import PipelineSettings, SettingsMissing
from blocks.upload_queue import UploadQueue
from flows.pipeline.job import Parts, TaskIdentity, TaskLog
from flows.pipeline.published_contracts import LiveContracts

LOG = logging.getLogger("sluice")
_METADATA = "ECS_CONTAINER_METADATA_URI_V4"  # set in an ECS task


def assemble(settings: PipelineSettings) -> Parts:
    """Build the pipeline's parts (object store, queue and contracts) from the settings."""
    store = ObjectStore(settings.landing_bucket, settings.published_bucket)
    contracts = LiveContracts(settings.contracts_root, store)
    return Parts(
        settings=settings,
        store=store,
        queue=UploadQueue(
            settings.queue_url,
            dead_letter_queue_url=settings.dead_letter_queue_url,
            visibility_timeout_seconds=settings.visibility_timeout_seconds,
        ),
        read_contracts=contracts.read,
        keep_contract=contracts.keep,
    )


def drains_of(settings: PipelineSettings) -> Drains:
    """Return the object that starts drains of the queue named in the settings."""
    return Drains(
        state_machine_arn=settings.state_machine_arn,
        queue_url=settings.queue_url,
        published_bucket=settings.published_bucket,
        window_seconds=settings.window_seconds,
    )


def parts_of_environment() -> Parts:
    """Build the pipeline's parts from the environment. A run of a Prefect deployment uses the settings block of the
    deployment's stack instead if the environment configures no stack, or a different one. In an ECS task that Prefect
    started for one flow run, also start timers that end the task.

    Raises:
        SettingsMissing: a setting is missing or invalid in the environment, or the stack has no settings block.
    """
    parts = assemble(_settings_of_environment())
    if runtime.flow_run.id and os.environ.get(_METADATA):
        _end_later(parts.settings.task_limit_seconds)
    return parts


def _settings_of_environment() -> PipelineSettings:
    stack = runtime.deployment.name  # a deployment is named after its stack; None outside a deployment's run
    if stack and os.environ.get("SLUICE_STACK") != stack:
        from blocks.settings_block import settings_of_stack, use_credentials_of_stack

        use_credentials_of_stack(stack)
        return settings_of_stack(stack)
    return PipelineSettings.from_environment()


@cache
def _end_later(seconds: float) -> None:
    """Start timers that send SIGTERM to this process after `seconds`, and end it unconditionally a minute later. Start
    them only once. A task that drains the queue has its own timer (drain_queue.py)."""
    stop, end_at_once = partial(os.kill, os.getpid(), signal.SIGTERM), partial(os._exit, 143)
    for after, end in ((seconds, stop), (seconds + 60, end_at_once)):
        timer = threading.Timer(after, end)
        timer.daemon = True
        timer.start()


def task_identity(environment: Mapping[str, str] = os.environ) -> TaskIdentity:
    """Return the drain execution, the ECS task and the log stream of this container, and the time until which the task
    must keep running. Raise SettingsMissing if SLUICE_STAY_UNTIL is not a number."""
    task = _task_metadata(environment.get(_METADATA))
    try:
        stay_until = float(environment.get("SLUICE_STAY_UNTIL") or 0)
    except ValueError:
        raise SettingsMissing("SLUICE_STAY_UNTIL must be a time in seconds since 1970", ["SLUICE_STAY_UNTIL"]) from None
    return TaskIdentity(
        execution_arn=environment.get("SLUICE_EXECUTION_ARN") or None,
        task_arn=task.get("TaskARN"),
        log=_task_log(task),
        stay_until=stay_until,
    )


def _task_metadata(metadata_uri: str | None) -> dict[str, Any]:
    """Return this ECS task's metadata, or an empty dictionary outside ECS or if the endpoint fails. AWS describes them
    at docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html"""
    if not metadata_uri or not metadata_uri.startswith("http://"):
        return {}
    try:
        with urllib.request.urlopen(f"{metadata_uri}/task", timeout=2) as response:  # noqa: S310 (http only, above)
            metadata = json.load(response)
    except (OSError, ValueError, HTTPException):  # includes responses that break off
        metadata = None
    if not isinstance(metadata, dict) or "TaskARN" not in metadata:
        LOG.warning("the ECS metadata endpoint did not return this task's ARN")
        return {}
    return metadata


def _task_log(task: Mapping[str, Any]) -> TaskLog | None:
    for container in task.get("Containers") or []:
        options = container.get("LogOptions") or {}
        if "awslogs-group" in options and "awslogs-stream" in options:
            return TaskLog(options["awslogs-group"], options["awslogs-stream"])
    return None
