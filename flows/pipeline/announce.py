"""Announces the outcome of each upload as an EventBridge event, and counts outcomes in CloudWatch metrics.

Each outcome is announced at least once: an event that EventBridge rejects is sent again later. The metrics count the
events that were accepted and those that were rejected. They are written to the log in CloudWatch's embedded metric
format, so they cost no requests:
docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Any

from blocks.event_bus import Event, EventBus
from blocks.settings import PipelineSettings
from flows.pipeline.attempts import Attempt
from flows.pipeline.job import Parts
from flows.pipeline.json_log import print_line
from flows.pipeline.receipt import Receipt, Status, receipt_key
from flows.refinery.errors import SluiceError

LOG = logging.getLogger("sluice.announce")

EVENT_SCHEMA_VERSION = 1
EVENT_SOURCE = "sluice"
NAMESPACE = "Sluice"
_MAX_MESSAGE_CHARACTERS = 1_000  # so that ten events with the longest keys and messages fit into one call
_MAX_VALUES = 100  # how many values of one metric a log line may contain


class OutcomeStatus(StrEnum):
    """The outcome of an upload. `failed` means that Sluice gave up on it."""

    PUBLISHED = "published"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def detail_type(self) -> str:
        """Return the detail type of events with this outcome, such as "Sluice Upload Published"."""
        return f"Sluice Upload {self.capitalize()}"

    @property
    def metric(self) -> str:
        """Return the name of the metric that counts uploads with this outcome, such as UploadsPublished."""
        return f"Uploads{self.capitalize()}"


@dataclass(frozen=True, slots=True)
class RowCounts:
    """How many rows a file has and what happened to them: rows_in = published + quarantined + dropped."""

    rows_in: int
    published: int
    quarantined: int
    dropped: int


@dataclass(frozen=True, slots=True)
class OutcomeError:
    """Why an upload was not published. Consumers can match the code, which is stable; the message quotes no data."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeNotice:
    """The outcome of one upload, as it is reported in the upload's event."""

    status: OutcomeStatus
    dataset: str
    bucket: str
    key: str
    version_id: str | None
    run_id: str
    attempt: int  # 0 for the upload itself; each forced re-run or repair adds 1
    rows: RowCounts | None = None  # None if it failed
    receipt_uri: str | None = None  # None if it failed
    error: OutcomeError | None = None  # None if it was published
    # the time from the upload to its receipt; None if it failed, for a re-run, or if the time of the upload is unknown
    waited_seconds: float | None = None


def notice_of(outcome: Receipt | Attempt, settings: PipelineSettings) -> OutcomeNotice:
    """Return the notice for a receipt, or for an attempt that failed."""
    return _notice_of_attempt(outcome) if isinstance(outcome, Attempt) else _notice_of_receipt(outcome, settings)


def _notice_of_receipt(receipt: Receipt, settings: PipelineSettings) -> OutcomeNotice:
    rows, published = receipt.rows, receipt.status is Status.PUBLISHED
    return OutcomeNotice(
        status=OutcomeStatus(receipt.status),
        dataset=receipt.contract.dataset,
        bucket=receipt.source.bucket,
        key=receipt.source.key,
        version_id=receipt.source.version_id,
        run_id=receipt.run_id,
        attempt=receipt.attempt,
        rows=RowCounts(rows.rows_in, rows.published, rows.quarantined_total, rows.dropped_total),
        receipt_uri=f"s3://{settings.published_bucket}/{receipt_key(receipt.run_id)}",
        error=None if published else _rejection_of(receipt),
        waited_seconds=_waited_seconds(receipt),
    )


def _notice_of_attempt(attempt: Attempt) -> OutcomeNotice:
    upload = attempt.upload
    return OutcomeNotice(
        status=OutcomeStatus.FAILED,
        dataset=attempt.dataset,
        bucket=upload.bucket,
        key=upload.key,
        version_id=upload.version_id,
        run_id=upload.run_id,
        attempt=upload.attempt,
        error=OutcomeError(attempt.code, attempt.message[:_MAX_MESSAGE_CHARACTERS]),
    )


def event_of(notice: OutcomeNotice, stack: str) -> Event:
    detail = {"schema": EVENT_SCHEMA_VERSION, "stack": stack, **asdict(notice)}
    del detail["waited_seconds"]
    return Event(EVENT_SOURCE, notice.status.detail_type, json.dumps(detail, ensure_ascii=False))


class Announcer:
    """Sends the events that announce outcomes, and prints the metrics that count them.

    Args:
        counts: whether to print metrics. A task prints them, because CloudWatch reads its log; a command on a user's
            terminal does not.
    """

    def __init__(self, parts: Parts, bus: EventBus | None = None, *, counts: bool = True) -> None:
        self._settings = parts.settings
        self._counts = counts
        self._bus = bus or EventBus()

    def announce(self, notices: Iterable[OutcomeNotice]) -> frozenset[str]:
        """Announce outcomes, and return the run IDs of those that EventBridge accepted. Never raise an exception."""
        notices = list(notices)
        try:
            refusals = self._bus.put([event_of(notice, self._settings.stack) for notice in notices])
            taken = [notice for notice, refusal in zip(notices, refusals, strict=True) if refusal is None]
            self._report(refusals)
            for line in metric_lines(taken, len(notices) - len(taken), self._settings) if self._counts else ():
                print_line(LOG.name, "outcomes counted", line)
        except Exception as error:  # noqa: BLE001 (an outcome that is not announced now must not stop the work)
            LOG.error("outcomes not announced", extra={"fields": {"error": type(error).__name__}})
            return frozenset()
        return frozenset(notice.run_id for notice in taken)

    def _report(self, refusals: Sequence[SluiceError | None]) -> None:
        refused = [refusal for refusal in refusals if refusal is not None]
        if refused:
            error = f"{type(refused[0]).__name__}: {refused[0]}"
            LOG.warning("outcomes not announced", extra={"fields": {"uploads": len(refused), "error": error}})


def metric_lines(
    notices: Sequence[OutcomeNotice], refused: int, settings: PipelineSettings
) -> Iterator[dict[str, Any]]:
    """Yield the log lines that report the metrics, in CloudWatch's embedded metric format.

    Args:
        notices: the outcomes that EventBridge accepted.
        refused: the number of outcomes that EventBridge rejected.
    """
    if refused:
        yield _line({"Stack": settings.stack}, [["Stack"]], {"OutcomesNotAnnounced": refused})
    for start in range(0, len(notices), _MAX_VALUES):
        chunk = notices[start : start + _MAX_VALUES]
        if not settings.dataset_metrics:
            yield _line({"Stack": settings.stack}, [["Stack"]], _metrics(chunk))
            continue
        by_dataset = sorted(chunk, key=lambda notice: notice.dataset)
        for dataset, group in groupby(by_dataset, key=lambda notice: notice.dataset):
            names = {"Stack": settings.stack, "Dataset": dataset}
            yield _line(names, [["Stack"], ["Stack", "Dataset"]], _metrics(list(group)))


def _metrics(notices: Sequence[OutcomeNotice]) -> dict[str, int | list[float]]:
    rows = [notice.rows for notice in notices if notice.rows]
    waited = [notice.waited_seconds for notice in notices if notice.waited_seconds is not None]
    counts = {status.metric: sum(notice.status is status for notice in notices) for status in OutcomeStatus} | {
        "RowsPublished": sum(count.published for count in rows),
        "RowsQuarantined": sum(count.quarantined for count in rows),
    }
    # Leave out zeros, because CloudWatch also bills a metric that is always 0.
    counted = {name: count for name, count in counts.items() if count}
    return {**counted, **({"SecondsFromUploadToReceipt": waited} if waited else {})}


def _line(names: dict[str, str], dimensions: list[list[str]], metrics: dict[str, Any]) -> dict[str, Any]:
    definitions = [{"Name": name, "Unit": "Seconds" if "Seconds" in name else "Count"} for name in metrics]
    about = {
        "Timestamp": int(time.time() * 1000),
        "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": dimensions, "Metrics": definitions}],
    }
    return {"_aws": about, **names, **metrics}


def _rejection_of(receipt: Receipt) -> OutcomeError:
    code = receipt.reasons[0].code if receipt.reasons else "rejected"
    return OutcomeError(code, receipt.reason[:_MAX_MESSAGE_CHARACTERS])


def _waited_seconds(receipt: Receipt) -> float | None:
    if receipt.attempt or not receipt.source.last_modified:
        return None
    uploaded, done = map(datetime.fromisoformat, (receipt.source.last_modified, receipt.created_at))
    return round(max(0.0, (done - uploaded).total_seconds()), 3)
