"""The Lambda function that S3 invokes for every upload. It reads the event and dispatches each upload in it."""

import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from lambda_trigger.dispatch import Dispatcher
from lambda_trigger.events import EventUnreadable, Ignored, RecordUnreadable, read_record, records_of_event
from lambda_trigger.ignored_names import IGNORED_NAMES
from lambda_trigger.message import folder_of

LOG = logging.getLogger("sluice.trigger")
LOG.setLevel(logging.INFO)
# Lambda's own log handler would put a level and a time before each line, or wrap the line as a string in other JSON.
# A line on standard output is logged as it is.
LOG.addHandler(logging.StreamHandler(sys.stdout))
LOG.propagate = False

# Several attempts within one invocation; Lambda itself retries an asynchronous event twice.
_CALLS = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 4})


class RecordsFailed(Exception):
    """At least one record could not be dispatched. This is raised after all records were tried, so that Lambda retries
    the event. The retry dispatches the other uploads again, which is harmless: they are processed once."""


@dataclass(frozen=True, slots=True)
class TriggerConfig:
    """The handler's settings, and the dispatcher for its uploads."""

    bucket: str
    incoming_prefix: str
    dispatcher: Dispatcher
    ignored_names: str = IGNORED_NAMES


@cache
def trigger_from_environment() -> TriggerConfig:
    """Build the configuration from environment variables, once in each Lambda execution environment."""
    return TriggerConfig(
        bucket=os.environ["SLUICE_LANDING_BUCKET"],
        incoming_prefix=os.environ.get("SLUICE_INCOMING_PREFIX", "incoming/"),
        dispatcher=Dispatcher(
            sqs=boto3.client("sqs", config=_CALLS),
            step_functions=boto3.client("stepfunctions", config=_CALLS),
            s3=boto3.client("s3", config=_CALLS),
            queue_url=os.environ["SLUICE_QUEUE_URL"],
            state_machine_arn=os.environ["SLUICE_STATE_MACHINE_ARN"],
            published_bucket=os.environ["SLUICE_PUBLISHED_BUCKET"],
            window_seconds=int(os.environ["SLUICE_WINDOW_SECONDS"]),
        ),
        ignored_names=os.environ.get("SLUICE_IGNORED_NAMES", IGNORED_NAMES),
    )


def handle(event: object, context: object) -> dict[str, int]:
    """Handle one event, and return how many of its records had each outcome. This is AWS Lambda's entry point."""
    return handle_event(event, trigger_from_environment(), getattr(context, "aws_request_id", None))


def handle_event(event: object, trigger: TriggerConfig, request_id: str | None = None) -> dict[str, int]:
    """Dispatch every upload in `event`, and return how many of its records were dispatched, were ignored or failed.

    Raises:
        EventUnreadable: `event` is not an S3 event.
        RecordsFailed: at least one record failed; all others were handled.
    """
    counts = {"dispatched": 0, "ignored": 0, "failed": 0}
    try:
        records = records_of_event(event)
    except EventUnreadable as error:
        _log("event_unreadable", request_id, logging.ERROR, error=str(error))
        raise
    for index, record in enumerate(records):
        counts[_handle_record(record, index, trigger, request_id)] += 1
    if counts["failed"]:
        raise RecordsFailed(f"{counts['failed']} of {len(records)} records could not be dispatched; see the log")
    return counts


def _handle_record(record: object, index: int, trigger: TriggerConfig, request_id: str | None) -> str:
    started = time.monotonic()
    try:
        upload = read_record(
            record,
            bucket=trigger.bucket,
            incoming_prefix=trigger.incoming_prefix,
            ignored_names=trigger.ignored_names,
        )
        if isinstance(upload, Ignored):
            _log("ignored", request_id, record=index, reason=upload.reason, what=upload.what)
            return "ignored"
        dispatched = trigger.dispatcher.dispatch(upload)
    except RecordUnreadable as error:
        _log("record_unreadable", request_id, logging.ERROR, record=index, error=str(error))
        return "failed"
    except Exception as error:  # noqa: BLE001 (one record's failure must not keep the others from being tried)
        _log("dispatch_failed", request_id, logging.ERROR, record=index, error=f"{type(error).__name__}: {error}")
        return "failed"
    _log(
        "dispatched",
        request_id,
        record=index,
        run_id=upload.run_id,
        dataset=folder_of(upload.key, trigger.incoming_prefix) or "default",
        stage="dispatch",
        seconds=round(time.monotonic() - started, 3),
        key=upload.key,
        version_id=upload.version_id,
        message_id=dispatched.message_id,
        drain=dispatched.drain,
        execution_arn=dispatched.execution_arn,
    )
    return "dispatched"


def _log(what_happened: str, request_id: str | None, level: int = logging.INFO, **fields: Any) -> None:
    """Log one JSON line that CloudWatch Logs Insights can query. The field names are those of the container's log."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": logging.getLevelName(level),
        "logger": LOG.name,
        "event": what_happened,
        "request_id": request_id,
        **fields,
    }
    LOG.log(level, json.dumps(line, ensure_ascii=False))
