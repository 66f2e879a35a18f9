"""Describes flow runs that are created after their uploads were processed, from receipts or last failed attempts.

Prefect rejects states with client-supplied timestamps (HTTP 422), so such a run begins and ends when it is recorded.
The actual times are in labels, in the state's message and in the log lines.
"""

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from blocks.settings import PipelineSettings
from flows.observability.run_identity import artifact_name, idempotency_key, run_name, run_parameters, upload_tags
from flows.observability.run_summary import (
    ConsoleLinks,
    failed_checks,
    failure_summary,
    outcome_message,
    outcome_tags,
    upload_summary,
)
from flows.pipeline.announce import OutcomeNotice, OutcomeStatus, notice_of
from flows.pipeline.attempts import Attempt
from flows.pipeline.receipt import Receipt, Source, Status, receipt_key
from lambda_trigger.message import UploadMessage

LARGE_BYTES = 100 * 1024**2
"""The minimum size of a published file whose run has a summary. Runs of rejected, failed and forced uploads always have
one."""

GIVEN_UP = "given-up"  # a tag
_TIME = "%Y-%m-%d %H:%M:%S"


class LogLine(NamedTuple):
    """A line in the log of a recorded run, and the time of what it describes."""

    at: datetime
    level: int
    message: str


@dataclass(frozen=True)
class RecordedRun:
    """What Prefect should show for one upload that is recorded after processing."""

    notice: OutcomeNotice
    state_type: str  # the type of the final state, such as COMPLETED
    message: str  # the message of the final state
    tags: frozenset[str]  # the outcome's tags; `to_create` adds those that every run of an upload has
    labels: dict[str, str]
    log: tuple[LogLine, ...]
    summary: str | None = None  # an artifact in Markdown; None for a small file that was published without `force`
    flow_run_id: str | None = None  # the run that showed the upload live; None if none did
    event_key: str = ""  # distinguishes events of the same attempt that have the same name

    @property
    def run_id(self) -> str:
        return self.notice.run_id

    @property
    def key(self) -> str:
        """Return the flow run's idempotency key."""
        return idempotency_key(self.notice.run_id, self.notice.attempt)

    @property
    def state(self) -> dict[str, str]:
        """Return the final state in the form that Prefect's API expects."""
        return {"type": self.state_type, "name": self.state_type.capitalize(), "message": self.message}

    @property
    def was_given_up(self) -> bool:
        """Return whether Sluice gave up on the upload, in which case it has no receipt."""
        return self.notice.status is OutcomeStatus.FAILED

    def fits(self, state_type: str | None, tags: Collection[str]) -> bool:
        """Return whether an existing run with this state and these tags already shows the outcome. If Sluice gave up on
        the upload, any final state is enough, because a run that crashed or was cancelled shows more than a recorded
        run."""
        if self.was_given_up:
            return state_type in ("FAILED", "CRASHED", "CANCELLED", "COMPLETED")
        return state_type == self.state_type and self.notice.status in tags

    def to_create(self, settings: PipelineSettings) -> dict[str, Any]:
        """Return the body of the request to Prefect's API that creates the flow run."""
        notice = self.notice
        return {
            "name": run_name(notice.key, notice.run_id, settings.incoming_prefix),
            "parameters": run_parameters(notice.bucket, notice.key, notice.version_id),
            "enforce_parameter_schema": False,  # the check would cost the server time for each run
            "tags": sorted({*upload_tags(notice.key, settings.incoming_prefix), *self.tags, "recorded"}),
            "labels": {f"sluice.{name}": value for name, value in self.labels.items()},
            "idempotency_key": self.key,
            "state": self.state,
        }

    def artifact(self) -> dict[str, Any] | None:
        """Return the summary as an artifact for Prefect's API, without the ID of the flow run; None if there is no
        summary."""
        if self.summary is None:
            return None
        return {
            "key": f"summary-{artifact_name(self.notice.dataset)}",
            "type": "markdown",
            "description": "The outcome of the upload.",
            "data": self.summary,
        }


def run_of(outcome: Receipt | Attempt, settings: PipelineSettings) -> RecordedRun:
    """Return the run that shows an upload that has a receipt, or that Sluice gave up on."""
    return _run_of_attempt(outcome, settings) if isinstance(outcome, Attempt) else _run_of_receipt(outcome, settings)


def _run_of_receipt(receipt: Receipt, settings: PipelineSettings) -> RecordedRun:
    ended = datetime.fromisoformat(receipt.created_at)
    started = ended - timedelta(seconds=sum(receipt.timings_seconds.values()))
    rejected = receipt.status is Status.REJECTED
    own_summary = rejected or receipt.attempt or receipt.source.size_bytes >= LARGE_BYTES
    links = ConsoleLinks.of(settings.queue_url, settings.published_bucket)
    labels = {
        "uploaded": receipt.source.last_modified or "",
        "started": started.isoformat(timespec="milliseconds"),
        "ended": ended.isoformat(timespec="milliseconds"),
        "task": receipt.chain.task_arn or "",
    }
    return RecordedRun(
        notice=notice_of(receipt, settings),
        state_type="FAILED" if rejected else "COMPLETED",
        message=f"{outcome_message(receipt)}\nProcessed {started:{_TIME}} to {ended:%H:%M:%S} UTC, recorded later.",
        tags=frozenset(outcome_tags(receipt)),
        labels={name: value for name, value in labels.items() if value},
        log=tuple(_story(receipt, started, ended)),
        summary=upload_summary(receipt, links) if own_summary else None,
        flow_run_id=receipt.chain.flow_run_id,
    )


def _run_of_attempt(attempt: Attempt, settings: PipelineSettings) -> RecordedRun:
    at, upload = datetime.fromisoformat(attempt.at), attempt.upload
    message = f"{attempt.error}: {attempt.message}"
    labels = {"uploaded": upload.event_time or "", "ended": attempt.at, "task": attempt.task_arn or ""}
    return RecordedRun(
        notice=notice_of(attempt, settings),
        state_type="FAILED",
        message=f"{message}\nGiven up at {at:{_TIME}} UTC after {attempt.receive_count} deliveries, recorded later.",
        tags=frozenset({attempt.dataset, GIVEN_UP}),
        labels={name: value for name, value in labels.items() if value},
        log=(LogLine(at, logging.INFO, _file_of(upload)), LogLine(at, logging.ERROR, message)),
        summary=failure_summary(attempt),
        event_key=attempt.at,
    )


def _story(receipt: Receipt, started: datetime, ended: datetime) -> Iterator[LogLine]:
    """Yield the main log lines that a live run of the upload would have had."""
    source, rows = receipt.source, receipt.rows
    yield LogLine(started, logging.INFO, _file_of(source))
    judged = started + timedelta(seconds=sum(receipt.timings_seconds.get(stage, 0) for stage in ("fetch", "refine")))
    failed = failed_checks(receipt.checks)
    for line in failed:
        yield LogLine(judged, logging.WARNING, line)
    yield LogLine(
        judged,
        logging.INFO,
        f"{rows.rows_in:,} rows under the contract {receipt.contract.dataset}: "
        f"{len(receipt.checks) - len(failed)} of {len(receipt.checks)} checks passed.",
    )
    if receipt.reasons:
        yield LogLine(judged, logging.WARNING, f"The file cannot be published: {receipt.reason}.")
    for output in receipt.outputs:
        yield LogLine(ended, logging.INFO, f"Wrote {output.key} ({output.rows:,} rows, {output.size_bytes:,} bytes).")
    yield LogLine(ended, logging.INFO, f"The receipt is {receipt_key(receipt.run_id)}: {receipt.status}.")
    yield LogLine(ended, logging.INFO, f"{outcome_message(receipt)}.")


def _file_of(source: Source | UploadMessage) -> str:
    return f"The file is s3://{source.bucket}/{source.key} ({source.size_bytes:,} bytes)."
