"""Names, keys, parameters and tags of an upload's flow run. They are the same for a live run and a recorded run."""

from pathlib import PurePosixPath
from typing import Any

from lambda_trigger.message import folder_of, slug

FLOW_NAME = "process-upload"
DRAIN_FLOW_NAME = "drain-queue"
TASK_LABEL = "sluice.task"
"""The label of a flow run that contains the ARN of its ECS task."""


def idempotency_key(run_id: str, attempt: int) -> str:
    """Return the idempotency key of an attempt's flow run. Prefect creates only one flow run per key."""
    return f"{run_id}-{attempt}" if attempt else run_id


def run_name(key: str, run_id: str | None, incoming_prefix: str = "incoming/") -> str:
    """Return the name of an upload's flow run: "FOLDER / FILE", followed by the first 8 characters of the run ID if it
    is given."""
    names = [folder_of(key, incoming_prefix) or "default", PurePosixPath(key).name]
    return " ".join([" / ".join(names), *([run_id[:8]] if run_id else [])])


def run_parameters(bucket: str, key: str, version_id: str | None) -> dict[str, Any]:
    """Return the parameters of an upload's flow run. A retry in Prefect uses them to process the same object version
    again."""
    return {"bucket": bucket, "key": key, "version_id": version_id or ""}


def upload_tags(key: str, incoming_prefix: str) -> set[str]:
    """Return the tags that an upload's flow run has from the start: `upload`, and the upload's folder or `default`."""
    return {folder_of(key, incoming_prefix) or "default", "upload"}


def artifact_name(name: str) -> str:
    """Convert a name to what Prefect allows in artifact keys: lowercase letters, digits and dashes."""
    return slug(name).replace("_", "-")


def stack_tag(stack: str) -> str:
    return f"stack:{stack}"
