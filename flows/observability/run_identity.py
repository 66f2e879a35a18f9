"""What identifies the flow run of an upload: the same whether it runs live, is recorded later, or runs again. Pure."""

from pathlib import PurePosixPath
from typing import Any

from lambda_trigger.message import folder_of, slug

FLOW_NAME = "process-upload"
DRAIN_FLOW_NAME = "drain-queue"
TASK_LABEL = "sluice.task"
"""The label of a flow run that holds the ARN of its ECS task."""


def idempotency_key(run_id: str, attempt: int) -> str:
    """Return the key under which Prefect has one flow run for an attempt at an upload."""
    return f"{run_id}-{attempt}" if attempt else run_id


def run_name(key: str, run_id: str | None, incoming_prefix: str = "incoming/") -> str:
    """Return the name of a flow run: folder, file and the first characters of the run id."""
    names = [folder_of(key, incoming_prefix) or "default", PurePosixPath(key).name]
    return " ".join([" / ".join(names), *([run_id[:8]] if run_id else [])])


def run_parameters(bucket: str, key: str, version_id: str | None) -> dict[str, Any]:
    """Return the parameters with which the run processes the same object version again."""
    return {"bucket": bucket, "key": key, "version_id": version_id or ""}


def upload_tags(key: str, incoming_prefix: str) -> set[str]:
    """Return the tags that the run of an upload has from the start."""
    return {folder_of(key, incoming_prefix) or "default", "upload"}


def artifact_name(dataset: str) -> str:
    """Return a dataset's name as an artifact key: lower-case letters, digits and dashes."""
    return slug(dataset).replace("_", "-")


def stack_tag(stack: str) -> str:
    return f"stack:{stack}"
