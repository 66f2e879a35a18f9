"""Shows the progress and the outcome of an upload in its Prefect flow run. If a call to Prefect fails, that is logged,
and the upload continues."""

import time
from typing import cast
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from flows.observability.run_identity import artifact_name
from flows.observability.run_summary import ConsoleLinks, outcome_tags, upload_summary
from flows.pipeline.receipt import Receipt
from flows.refinery.errors import SluiceError
from flows.refinery.read.remote_file import Source, open_source, size_of

_SAMPLE_BYTES = 1 << 20
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK")  # gzip, zstd, zip (XLSX)
_PARQUET = b"PAR1"

# Where each part of the refine stage begins and ends on the progress bar. The rest of the bar is for the other stages.
_SPAN_PERCENT = {"refine": (5.0, 95.0), "validate": (5.0, 70.0), "preprocess": (70.0, 95.0)}


class ProgressBar:
    """A progress artifact in Prefect for a file that takes a long time to refine. It appears after `quiet_seconds`, and
    is updated at most once every `quiet_seconds`."""

    def __init__(self, *, quiet_seconds: float = 3.0) -> None:
        self._quiet_seconds = quiet_seconds
        self._shown_at = time.monotonic()
        self._artifact: UUID | None = None
        self._failed = False
        self._dataset = "default"
        self._rows_expected: int | None = None

    def expect(self, dataset: str, rows: int | None) -> None:
        """Set the file's dataset and, if known, its approximate number of rows."""
        self._dataset, self._rows_expected = dataset, rows

    def moved(self, part: str, rows: int) -> None:
        """Report that a part of the refine stage has processed `rows` rows so far. Do nothing if the last update was
        less than `quiet_seconds` ago."""
        if self._failed or time.monotonic() - self._shown_at < self._quiet_seconds:
            return
        self._shown_at = time.monotonic()
        of = f" of about {self._rows_expected:,}" if self._rows_expected else ""
        get_run_logger().info("%s: %s rows so far%s", part, f"{rows:,}", of)
        self._show(self._percent(part, rows), f"{part}: {rows:,} rows{of}")

    def done(self) -> None:
        """Set the progress bar to 100% if it was shown."""
        if self._artifact is not None:
            self._show(100.0, "done")

    def _percent(self, part: str, rows: int) -> float:
        low, high = _SPAN_PERCENT.get(part, (95.0, 100.0))
        share = min(rows / self._rows_expected, 1.0) if self._rows_expected else 0.5
        return round(low + (high - low) * share, 1)

    def _show(self, percent: float, what: str) -> None:
        try:
            if self._artifact is None:
                key = f"progress-{artifact_name(self._dataset)}"
                artifact = create_progress_artifact(percent, key=key, description=what)
                self._artifact = cast(UUID, artifact)  # its type covers the asynchronous variant as well
            else:
                update_progress_artifact(self._artifact, percent, description=what)
        except Exception as error:  # noqa: BLE001 (observability never holds data back)
            self._failed = True
            get_run_logger().warning("progress cannot be shown: %s", type(error).__name__)


def rows_in(source: Source) -> int | None:
    """Estimate the number of rows in a file from its first bytes or, for Parquet, read it from the footer. Return None
    if neither is possible."""
    try:
        with open_source(source) as file:
            sample = file.read(_SAMPLE_BYTES)
            if sample.startswith(_PARQUET):
                return int(pq.read_metadata(file).num_rows)
    except (SluiceError, OSError, pa.ArrowException):
        return None
    lines = 0 if sample.startswith(_COMPRESSED) else sample.count(b"\n")
    return round(size_of(source) / len(sample) * lines) if lines else None


def show_outcome(
    receipt: Receipt,
    links: ConsoleLinks,
    *tags: str,
    name: str | None = None,
    task: str | None = None,
    dry_run: bool = False,
) -> None:
    """Add a summary and tags to the current flow run, so that Prefect shows the upload's outcome.

    All summaries of a dataset have the same artifact key, so that Prefect shows their history. Summaries of dry runs
    have a different key.

    Args:
        tags: further tags, in addition to those of the outcome.
        name: a new name for the flow run; None to keep the current name.
        task: the ECS task, as `infrastructure_of` returns it; None if there is none.
    """
    dataset = artifact_name(receipt.contract.dataset)
    kind = "dry-run-" if dry_run else ""
    try:
        create_markdown_artifact(
            key=f"{kind}summary-{dataset}",
            markdown=upload_summary(receipt, links),
            description="The outcome that the upload would have." if dry_run else "The outcome of the upload.",
        )
        _amend_flow_run({*outcome_tags(receipt), *tags}, name=name, infrastructure_pid=task)
    except Exception as error:  # noqa: BLE001 (observability never holds data back; the receipt is committed already)
        get_run_logger().warning("the outcome cannot be shown: %s", type(error).__name__)


def _amend_flow_run(tags: set[str], *, name: str | None, infrastructure_pid: str | None) -> None:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    with get_client(sync_client=True) as client:
        all_tags = sorted({*context.flow_run.tags, *tags})
        client.update_flow_run(context.flow_run.id, tags=all_tags, name=name, infrastructure_pid=infrastructure_pid)
