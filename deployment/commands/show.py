"""Shows the progress and the outcomes of uploads in the terminal."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from deployment.commands import visible_line
from deployment.commands.progress import FIRST_SECONDS
from deployment.commands.upload_files import LocalFile
from deployment.commands.uploads import TrackedUpload, Uploads, UploadState
from deployment.deployed_stack import DeployedStack
from flows.pipeline.receipt import Receipt, receipt_key
from flows.refinery.errors import SluiceError

_STYLES = {
    UploadState.UPLOADED: "dim",
    UploadState.QUEUED: "blue",
    UploadState.RUNNING: "cyan",
    UploadState.PUBLISHED: "green",
    UploadState.REJECTED: "yellow",
    UploadState.FAILED: "bold red",
}
_BARS_KEPT = 10
_FINISHED_WELL = (UploadState.PUBLISHED, UploadState.REJECTED)


@contextmanager
def shown_steps(console: Console, begun: float | None = None) -> Iterator[Callable[[str], None]]:
    """Show the current step next to a spinner or, if the console is not a terminal, print one line per step. Yield the
    function to call with the name of each step when it begins.

    Args:
        begun: the value of time.monotonic() from which printed lines count the seconds; by default, the current one.
    """
    begun = begun or time.monotonic()
    if not console.is_terminal:
        yield lambda step: console.out(f"{time.monotonic() - begun:5.1f} s  {step}")
        return
    with console.status("starting") as status:
        yield lambda step: status.update(f"{step} ...")


@contextmanager
def shown_bars(console: Console, files: Collection[LocalFile]) -> Iterator[None]:
    """If the console is a terminal, show a progress bar for each file, beginning after one second. If there are more
    than ten files, show only those that are being uploaded."""
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bars = Progress(*columns, console=console, transient=True)

    def moved(bar: TaskID, total_bytes: int, sent_bytes: int) -> None:
        bars.advance(bar, sent_bytes)
        bars.update(bar, visible=len(files) <= _BARS_KEPT or bars.tasks[bar].completed < total_bytes)

    for file in files:
        bar = bars.add_task(escape(visible_line(file.name)), total=file.size_bytes, visible=False)
        file.on_bytes = partial(moved, bar, file.size_bytes)
    later = threading.Timer(FIRST_SECONDS, bars.start)
    later.start()
    try:
        yield
    finally:
        later.cancel()
        later.join()
        bars.stop()


@contextmanager
def shown_progress(
    console: Console, uploads: list[TrackedUpload], begun: float | None = None
) -> Iterator[Callable[[], None]]:
    """Show uploads in a live table or, if the console is not a terminal, print one line per change. Yield the function
    to call after each poll.

    Args:
        begun: the value of time.monotonic() from which printed lines count the seconds; by default, each upload's own
            start.
    """
    if console.is_terminal:
        with Live(
            get_renderable=lambda: _table(uploads, console.height), console=console, refresh_per_second=8
        ) as live:
            yield live.refresh
        return
    printed: dict[str, tuple[UploadState, str]] = {}

    def print_changes() -> None:
        for upload in uploads:
            news = (upload.stage, upload.note)
            if printed.get(upload.message.run_id) != news:
                printed[upload.message.run_id] = news
                more = upload.note or rows_of(upload.receipt)
                seconds = upload.seconds if begun is None else time.monotonic() - begun
                console.out(f"{seconds:5.1f} s  {upload.stage:<9}  {visible_line(upload.name)}  {more}".rstrip())

    yield print_changes


def _table(uploads: list[TrackedUpload], lines: int) -> Table:
    """Return a table of at most `lines` lines. If there are more uploads, finished uploads are omitted first."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("file", "state", "rows"):
        table.add_column(column, no_wrap=column != "rows")
    table.add_column("time", justify="right", no_wrap=True)
    rows = max(lines - 3, 1)
    shown = uploads if len(uploads) <= rows else sorted(uploads, key=lambda one: one.done)[:rows]
    for upload in shown:
        style = _STYLES[upload.stage]
        table.add_row(
            escape(visible_line(upload.name)),
            f"[{style}]{_marks(upload.stage)} {upload.stage}[/]",
            upload.note or rows_of(upload.receipt),
            f"{upload.seconds:.1f} s",
        )
    if len(shown) < len(uploads):
        done = sum(one.done for one in uploads)
        table.add_row(
            f"and {len(uploads) - len(shown):,} more", f"{done:,} of {len(uploads):,} done", "", "", style="dim"
        )
    return table


def _marks(stage: UploadState) -> str:
    """Return the progress of an upload as four dots."""
    reached = {UploadState.UPLOADED: 1, UploadState.QUEUED: 2, UploadState.RUNNING: 3}.get(stage, 4)
    return "●" * reached + "○" * (4 - reached)


def rows_of(receipt: Receipt | None) -> str:
    """Return the numbers of published, quarantined and dropped rows, such as "9 of 10 published, 1 dropped", or "" if
    there is no receipt."""
    if receipt is None:
        return ""
    rows = receipt.rows
    return f"{rows.published:,} of {rows.rows_in:,} published{rows.left_out}"


def details_of(receipt: Receipt) -> list[str]:
    """Return a line for each reason for rejection, for each rule that quarantined rows and, unless the file was
    rejected, for each step that dropped rows."""
    lines = [f"rejected: {reason.message}" for reason in receipt.reasons]
    lines += [f"quarantined {count:,}: {rule}" for rule, count in receipt.rows.quarantined.items()]
    if not receipt.reasons:
        lines += [f"dropped {count:,}: {step}" for step, count in receipt.rows.dropped.items()]
    return lines


def print_outcomes(console: Console, cloud: DeployedStack, uploads: Iterable[TrackedUpload]) -> None:
    """Print the outcome of each upload, the reasons for it, and the S3 URI of its receipt."""
    for upload in uploads:
        style, rows = _STYLES[upload.stage], rows_of(upload.receipt)
        console.print(f"[{style}]{upload.stage:<9}[/]  [bold]{escape(visible_line(upload.name))}[/]  {rows}".rstrip())
        lines = details_of(upload.receipt) if upload.receipt else [upload.problem or upload.note or "no receipt yet"]
        if upload.stage in _FINISHED_WELL:
            lines.append(receipt_address(cloud, upload.message.run_id))
        for line in lines:
            console.out(f"           {line}", style="dim")


def print_problems(console: Console, problems: Mapping[str, SluiceError]) -> None:
    """Print each file that was not uploaded, by name, with the error."""
    for name, error in problems.items():
        console.out(f"not uploaded  {visible_line(name)}: {error}", style="bold red")


def print_unreadable(console: Console, uploads: Uploads) -> None:
    """Print the objects that could not be read, with the reasons, and remove them from `uploads.unreadable` so that
    each is printed only once."""
    while uploads.unreadable:
        address, reason = uploads.unreadable.popitem()
        console.out(f"unreadable {visible_line(address)}: {visible_line(reason)}", style="bold red")


def receipt_address(cloud: DeployedStack, run_id: str) -> str:
    """Return the S3 URI of a run's receipt."""
    return f"s3://{cloud.outputs['PublishedBucket']}/{receipt_key(run_id)}"
