"""Shows uploads and receipts in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from deployment.commands.uploads import TrackedUpload, UploadState
from deployment.deployed_stack import DeployedStack
from flows.pipeline.receipt import Receipt, receipt_key

_STYLES = {
    UploadState.UPLOADED: "dim",
    UploadState.QUEUED: "blue",
    UploadState.RUNNING: "cyan",
    UploadState.PUBLISHED: "green",
    UploadState.REJECTED: "yellow",
    UploadState.FAILED: "bold red",
}
_FINISHED_WELL = (UploadState.PUBLISHED, UploadState.REJECTED)


class StepDisplay:
    """Shows the current step: a spinner on a terminal, else one line per step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()
        self._status = console.status("starting")

    @contextmanager
    def shown(self) -> Iterator[Callable[[str], None]]:
        """Give the function to call when a step begins."""
        if not self._console.is_terminal:
            yield self._print
            return
        with self._status:
            yield self._spin

    def end(self) -> None:
        """Remove the spinner, so that something else can be shown."""
        self._status.stop()

    def _spin(self, step: str) -> None:
        self._status.update(f"{step} ...")

    def _print(self, step: str) -> None:
        self._console.print(f"{time.monotonic() - self._begun:5.1f} s  {step}", highlight=False)


class ProgressTable:
    """A live table of uploads; where the output is not a terminal, one line per change."""

    def __init__(self, console: Console, uploads: list[TrackedUpload]) -> None:
        self._console, self._uploads = console, uploads
        self._printed: dict[str, tuple[UploadState, str]] = {}
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[Callable[[], None]]:
        """Give the function to call after each poll."""
        if not self._console.is_terminal:
            yield self._print_changes
            return
        with Live(self._table(), console=self._console, refresh_per_second=8) as self._live:
            yield self._update

    def _update(self) -> None:
        if self._live is not None:
            self._live.update(self._table())

    def _print_changes(self) -> None:
        for upload in self._uploads:
            news = (upload.stage, upload.note)
            if self._printed.get(upload.message.run_id) != news:
                self._printed[upload.message.run_id] = news
                more = upload.note or rows_of(upload.receipt)
                line = f"{upload.seconds:5.1f} s  {upload.stage:<9}  {upload.name}  {more}"
                self._console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("file", "state", "rows"):
            table.add_column(column, no_wrap=column != "rows")
        table.add_column("time", justify="right", no_wrap=True)
        for upload in self._uploads:
            style = _STYLES[upload.stage]
            table.add_row(
                escape(upload.name),
                f"[{style}]{_marks(upload.stage)} {upload.stage}[/]",
                upload.note or rows_of(upload.receipt),
                f"{upload.seconds:.1f} s",
            )
        return table


def _marks(stage: UploadState) -> str:
    """Return the progress of an upload as four dots."""
    reached = {UploadState.UPLOADED: 1, UploadState.QUEUED: 2, UploadState.RUNNING: 3}.get(stage, 4)
    return "●" * reached + "○" * (4 - reached)


def rows_of(receipt: Receipt | None) -> str:
    """Summarize where a file's rows went; "" without a receipt."""
    if receipt is None:
        return ""
    rows = receipt.rows
    parts = [f"{rows.published:,} of {rows.rows_in:,} published"]
    if rows.quarantined_total:
        parts.append(f"{rows.quarantined_total:,} quarantined")
    if rows.dropped_total:
        parts.append(f"{rows.dropped_total:,} dropped")
    return ", ".join(parts)


def details_of(receipt: Receipt) -> list[str]:
    """Return the reasons and the row counts of a receipt, one per line."""
    lines = [f"rejected: {reason.message}" for reason in receipt.reasons]
    lines += [f"quarantined {count:,}: {rule}" for rule, count in receipt.rows.quarantined.items()]
    if not receipt.reasons:
        lines += [f"dropped {count:,}: {step}" for step, count in receipt.rows.dropped.items()]
    if not receipt.observed:
        lines.append("Prefect was unavailable: no flow run shows this upload")
    return lines


def print_outcomes(console: Console, cloud: DeployedStack, uploads: Iterable[TrackedUpload]) -> None:
    """Print the outcome of each upload, the reasons, and its receipt's address."""
    for upload in uploads:
        style = _STYLES[upload.stage]
        rows = rows_of(upload.receipt)
        console.print(
            f"[{style}]{upload.stage:<9}[/]  [bold]{escape(upload.name)}[/]  {rows}", highlight=False, soft_wrap=True
        )
        lines = details_of(upload.receipt) if upload.receipt else [upload.problem or "no receipt"]
        for line in lines:
            console.print(f"           {line}", style="dim", highlight=False, markup=False, soft_wrap=True)
        if upload.stage in _FINISHED_WELL:
            console.print(f"           {receipt_address(cloud, upload.message.run_id)}", style="dim", soft_wrap=True)


def receipt_address(cloud: DeployedStack, run_id: str) -> str:
    """Return the S3 address of a run's receipt."""
    return f"s3://{cloud.outputs['PublishedBucket']}/{receipt_key(run_id)}"
