"""`sluice status`: what waits, what is in progress, what failed, and what has an outcome."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from rich.console import Console
from rich.markup import escape

from deployment.commands import visible_line
from deployment.commands.show import details_of, print_unreadable, receipt_address, rows_of
from deployment.commands.uploads import QueueLengths, Uploads
from deployment.deployed_stack import DeployedStack
from flows.pipeline.attempts import Attempt
from flows.pipeline.held_uploads import HeldUpload
from flows.pipeline.receipt import Receipt

_DETAILS_SHOWN = 3
_INDENT = " " * 42


@dataclass(frozen=True)
class StackStatus:
    """What is known of a stack's uploads."""

    queue: QueueLengths
    in_progress: list[HeldUpload]  # uploads that a task holds, neither with a receipt nor given up
    unrecorded: int  # number of uploads that have a receipt or were given up, and that Prefect does not show so yet
    more_notes: bool  # whether older batch notes were left out of these two
    failed: list[Attempt]  # the last failed attempts of uploads without an outcome, the newest first
    failed_count: int  # number of all of these
    receipts: list[Receipt]  # the newest receipts
    is_paused: bool  # whether no drain is started


def status(console: Console, cloud: DeployedStack, *, limit: int, as_json: bool) -> None:
    """Show the newest uploads, the queues and the addresses, as tables or as one JSON document."""
    uploads = Uploads(cloud)
    found = status_of(uploads, limit=limit)
    if as_json:
        document = json.dumps(_document(cloud, found) | {"unreadable": uploads.unreadable}, indent=2)
        console.print_json(document, ensure_ascii=True) if console.is_terminal else console.out(document)
        return
    print_uploads(console, found)
    print_unreadable(console, uploads)
    console.print(
        *_queue_lines(found),
        f"Prefect UI {cloud.prefect_ui_url}   AWS {cloud.aws_endpoint_url or cloud.region}",
        f"receipts   s3://{cloud.outputs['PublishedBucket']}/receipts/",
        sep="\n",
    )


def status_of(uploads: Uploads, *, limit: int) -> StackStatus:
    """Read what is known, with at most `limit` receipts and failed attempts."""
    # The receipts last: an upload that gets its outcome meanwhile is not shown as failed or in progress.
    queue, held, tried = uploads.queue_lengths(), uploads.held(), uploads.runs_with_attempt()
    finished = uploads.runs_with_receipt()
    failed = [run_id for run_id, written in tried.items() if run_id not in finished or finished[run_id] <= written]
    shown = list(_without_outcome(uploads, failed[:limit], finished))
    tried_and_held = uploads.attempts(run_id for run_id in held.by_run if run_id in tried and run_id not in finished)
    ended = finished.keys() | {attempt.run_id for attempt in tried_and_held if attempt.given_up}
    return StackStatus(
        queue=queue,
        in_progress=[upload for run_id, upload in held.by_run.items() if run_id not in ended],
        unrecorded=sum(run_id in ended and not one.noted.recorded for run_id, one in held.by_run.items()),
        more_notes=held.more,
        failed=shown,
        failed_count=len(shown) + len(failed[limit:]),
        receipts=list(uploads.receipts(islice(finished, limit))),
        is_paused=uploads.is_paused(),
    )


def _without_outcome(uploads: Uploads, failed: list[str], finished: dict[str, datetime]) -> Iterator[Attempt]:
    for attempt in uploads.attempts(failed):
        receipts = uploads.receipts([attempt.run_id] if attempt.run_id in finished else [])
        if not attempt.is_superseded_by(next(receipts, None)):
            yield attempt


def print_uploads(console: Console, found: StackStatus) -> None:
    """Print a line for each upload, and the reasons."""
    if not found.in_progress and not found.failed and not found.receipts:
        if not found.queue.waiting:
            console.print("No uploads yet. Try: sluice upload FILE --dataset NAME")
        return
    console.print(f"{'when (UTC)':<19}  {'run':<8}  {'state':<9}  file", style="dim")
    # Lines, not a table: keys and reasons are long, and a table would truncate them on a narrow terminal.
    before = {attempt.run_id: attempt for attempt in found.failed}
    for held in found.in_progress:
        _print_line(console, held.note.at, held.noted.run_id, "[cyan]running  [/]", held.noted.upload.key, "")
        if attempt := before.pop(held.noted.run_id, None):
            console.out(f"{_INDENT}the attempt before failed: {attempt.reason}", style="dim")
    for attempt in before.values():
        state = "[bold red]failed   [/]" if attempt.given_up else "[red]retrying [/]"
        _print_line(console, attempt.at, attempt.run_id, state, attempt.upload.key, "")
        console.out(f"{_INDENT}{attempt.reason}", style="dim")
    if found.failed_count > len(found.failed):
        console.out(f"{_INDENT}and {found.failed_count - len(found.failed):,} more that failed", style="dim")
    for receipt in found.receipts:
        style = "green" if receipt.status == "published" else "yellow"
        state = f"[{style}]{receipt.status:<9}[/]"
        _print_line(console, receipt.created_at, receipt.run_id, state, receipt.source.key, rows_of(receipt))
        for detail in details_of(receipt)[:_DETAILS_SHOWN]:
            console.out(f"{_INDENT}{detail}", style="dim")


def _print_line(console: Console, when: str, run_id: str, state: str, key: str, rows: str) -> None:
    moment = when[:19].replace("T", " ")
    console.print(f"{moment}  {run_id[:8]}  {state}  [bold]{escape(visible_line(key))}[/]  {rows}".rstrip())


def _queue_lines(found: StackStatus) -> Iterator[str]:
    queue = found.queue
    yield (
        f"queue: {queue.waiting:,} waiting, {queue.being_worked_on:,} in progress, "
        f"{queue.given_up:,} in the dead-letter queue"
    )
    if found.is_paused:
        yield "paused: uploads queue up, and no drain starts until: sluice resume"
    if found.unrecorded:
        least = "at least " if found.more_notes else ""
        yield f"not recorded in Prefect yet: {least}{found.unrecorded:,}"


def _document(cloud: DeployedStack, found: StackStatus) -> dict[str, Any]:
    return {
        "prefect_ui_url": cloud.prefect_ui_url,
        "aws_endpoint_url": cloud.aws_endpoint_url,
        "region": cloud.region,
        "paused": found.is_paused,
        "queue": found.queue._asdict(),
        "in_progress": [_held_fields(held) for held in found.in_progress],
        "failed": [_attempt_fields(attempt) for attempt in found.failed],
        "failed_count": found.failed_count,
        "unrecorded": found.unrecorded,
        "more_notes": found.more_notes,
        "finished": [
            {"address": receipt_address(cloud, receipt.run_id), **receipt.model_dump(mode="json", by_alias=True)}
            for receipt in found.receipts
        ],
    }


def _held_fields(held: HeldUpload) -> dict[str, Any]:
    upload, note = held.noted.upload, held.note
    return {
        "run_id": upload.run_id,
        "bucket": upload.bucket,
        "key": upload.key,
        "since": note.at,
        "task_arn": note.task_arn,
        "is_refined": held.is_refined,
    }


def _attempt_fields(attempt: Attempt) -> dict[str, Any]:
    return {"run_id": attempt.run_id, **attempt.model_dump(mode="json", by_alias=True)}
