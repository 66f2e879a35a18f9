"""Shows uploads and receipts in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from deployment.commands import visible_line
from deployment.commands.uploads import TrackedUpload, Uploads, UploadState
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


@contextmanager
def shown_steps(console: Console) -> Iterator[Callable[[str], None]]:
    """Show the current step in a spinner or as one line per step; yield the function to call when a step begins."""
    begun = time.monotonic()
    if not console.is_terminal:
        yield lambda step: console.out(f"{time.monotonic() - begun:5.1f} s  {step}")
        return
    with console.status("starting") as status:
        yield lambda step: status.update(f"{step} ...")


@contextmanager
def shown_progress(console: Console, uploads: list[TrackedUpload]) -> Iterator[Callable[[], None]]:
    """Show uploads in a live table or as one line per change; yield the function to call after each poll."""
    if console.is_terminal:
        with Live(get_renderable=lambda: _table(uploads), console=console, refresh_per_second=8) as live:
            yield live.refresh
        return
    printed: dict[str, tuple[UploadState, str]] = {}

    def print_changes() -> None:
        for upload in uploads:
            news = (upload.stage, upload.note)
            if printed.get(upload.message.run_id) != news:
                printed[upload.message.run_id] = news
                more = upload.note or rows_of(upload.receipt)
                console.out(f"{upload.seconds:5.1f} s  {upload.stage:<9}  {visible_line(upload.name)}  {more}".rstrip())

    yield print_changes


def _table(uploads: list[TrackedUpload]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("file", "state", "rows"):
        table.add_column(column, no_wrap=column != "rows")
    table.add_column("time", justify="right", no_wrap=True)
    for upload in uploads:
        style = _STYLES[upload.stage]
        table.add_row(
            escape(visible_line(upload.name)),
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
    return lines


def print_outcomes(console: Console, cloud: DeployedStack, uploads: Iterable[TrackedUpload]) -> None:
    """Print the outcome of each upload, the reasons, and its receipt's address."""
    for upload in uploads:
        style, rows = _STYLES[upload.stage], rows_of(upload.receipt)
        console.print(f"[{style}]{upload.stage:<9}[/]  [bold]{escape(visible_line(upload.name))}[/]  {rows}")
        lines = details_of(upload.receipt) if upload.receipt else [upload.problem or "no receipt"]
        if upload.stage in _FINISHED_WELL:
            lines.append(receipt_address(cloud, upload.message.run_id))
        for line in lines:
            console.out(f"           {line}", style="dim")


def print_unreadable(console: Console, uploads: Uploads) -> None:
    """Print what could not be read, once, and why."""
    while uploads.unreadable:
        address, reason = uploads.unreadable.popitem()
        console.out(f"unreadable {visible_line(address)}: {visible_line(reason)}", style="bold red")


def receipt_address(cloud: DeployedStack, run_id: str) -> str:
    """Return the S3 address of a run's receipt."""
    return f"s3://{cloud.outputs['PublishedBucket']}/{receipt_key(run_id)}"
