"""`sluice status`: shows which uploads are waiting, in progress, failed or finished."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from deployment.commands import first_of, visible_line
from deployment.commands.show import details_of, print_unreadable, receipt_address, rows_of
from deployment.commands.upload_search import ALL, MOST_READ, FoundRuns, Wanted
from deployment.commands.uploads import QueueLengths, Uploads
from deployment.deployed_stack import DeployedStack
from flows.pipeline.attempts import Attempt
from flows.pipeline.held_uploads import HeldUpload
from flows.pipeline.receipt import Receipt, Status
from lambda_trigger.message import UploadMessage

_DETAILS_SHOWN = 3
_INDENT = " " * 42


@dataclass(frozen=True)
class StackStatus:
    """The state of a stack's uploads."""

    queue: QueueLengths  # the number of messages in the queue and in the dead-letter queue
    in_progress: list[HeldUpload]  # uploads that a task holds and that have no outcome yet
    unrecorded: int  # the number of uploads whose outcome Prefect does not show yet
    more_notes: bool  # whether the two fields above are incomplete, because older batch notes were not read
    failed: list[Attempt]  # the last failed attempts that no receipt supersedes, newest first
    failed_count: int  # an upper bound of the number of such attempts, because not all of them are read
    receipts: list[Receipt]  # the newest ones
    is_paused: bool
    published_contracts: Sequence[str] = ()  # the datasets with a published contract
    older: int = 0  # the number of runs whose receipts were not read
    # uploads found by name that have no outcome and no failed attempt, and that no task holds
    waiting: Sequence[UploadMessage] = ()


def status(console: Console, cloud: DeployedStack, *, limit: int, as_json: bool, wanted: Wanted = ALL) -> None:
    """Print the newest uploads, the queues and the URLs, as text or as one JSON document."""
    uploads = Uploads(cloud)
    found = status_of(uploads, limit=limit, wanted=wanted)
    if as_json:
        document = json.dumps(_document(cloud, found) | {"unreadable": uploads.unreadable}, indent=2)
        console.print_json(document, ensure_ascii=True) if console.is_terminal else console.out(document)
        return
    print_uploads(console, found, wanted)
    print_unreadable(console, uploads)
    console.print(
        *_queue_lines(found),
        f"Prefect UI {cloud.prefect_ui_url}   AWS {cloud.aws_endpoint_url or cloud.region}",
        f"receipts   s3://{cloud.outputs['PublishedBucket']}/receipts/",
        sep="\n",
    )


def status_of(uploads: Uploads, *, limit: int, wanted: Wanted = ALL) -> StackStatus:
    """Return the state of the uploads that `wanted` selects, with at most `limit` receipts and `limit` failed
    attempts."""
    # Receipts are read last, so that an upload that finishes in the meantime is not shown as failed or in progress.
    queue, notes, tried = uploads.queue_lengths(), uploads.held(), uploads.runs_with_attempt()
    search = uploads.find(wanted, limit) if wanted.text else None
    held = {run: one for run, one in notes.by_run.items() if search is None or search.has(one.noted.upload)}
    finished = uploads.runs_with_receipt() if search is None else search.runs
    failed, more_failed = _failed(uploads, tried, finished, search, wanted, limit)
    ended = {*finished} if search is None else {receipt.run_id for receipt in uploads.receipts(held)}
    tried_and_held = uploads.attempts(run_id for run_id in held if run_id in tried and run_id not in ended)
    ended |= {attempt.run_id for attempt in tried_and_held if attempt.given_up}
    recent = [run_id for run_id, written in finished.items() if wanted.is_recent(written)]
    receipts, looked_at = _receipts(uploads, recent, wanted, limit)
    waiting = search.uploads.items() if search and not wanted.failed else ()
    accounted = {*held, *tried, *(receipt.run_id for receipt in receipts)}
    return StackStatus(
        queue=queue,
        in_progress=[one for run_id, one in held.items() if run_id not in ended and not wanted.failed],
        unrecorded=sum(run_id in ended and not one.noted.recorded for run_id, one in held.items()),
        more_notes=notes.more,
        failed=failed,
        failed_count=len(failed) + more_failed,
        receipts=[receipt for receipt in receipts if not wanted.failed or receipt.status is Status.REJECTED][:limit],
        is_paused=uploads.is_paused(),
        published_contracts=uploads.published_contracts(),
        older=len(recent) - looked_at,
        waiting=[one for run_id, one in waiting if run_id in recent[:looked_at] and run_id not in accounted],
    )


def _failed(
    uploads: Uploads,
    tried: Mapping[str, datetime],
    finished: Mapping[str, datetime],
    search: FoundRuns | None,
    wanted: Wanted,
    limit: int,
) -> tuple[list[Attempt], int]:
    """Return the newest failed attempts that no receipt supersedes, and an upper bound of the number of further
    ones."""
    recent = {run_id: written for run_id, written in tried.items() if wanted.is_recent(written)}
    if search is None:
        chosen = [run_id for run_id, at in recent.items() if run_id not in finished or finished[run_id] <= at]
    else:
        chosen = [run_id for run_id in recent if search.may_have(run_id)]
    read = chosen[: limit if search is None else MOST_READ]
    attempts = [attempt for attempt in uploads.attempts(read) if search is None or search.has(attempt.upload)]
    outcomes = {receipt.run_id: receipt for receipt in uploads.receipts(attempt.run_id for attempt in attempts)}
    found = [attempt for attempt in attempts if not attempt.is_superseded_by(outcomes.get(attempt.run_id))]
    return found[:limit], len(found[limit:]) + len(chosen) - len(read)


def _receipts(uploads: Uploads, runs: Sequence[str], wanted: Wanted, limit: int) -> tuple[list[Receipt], int]:
    """Read the newest receipts until `limit` of them can be shown; return them and the number of runs checked."""
    found: list[Receipt] = []
    looked_at = shown = 0
    while shown < limit and looked_at < min(len(runs), MOST_READ):
        some = list(uploads.receipts(runs[looked_at : looked_at + limit]))
        looked_at += limit
        found += some
        shown += sum(not wanted.failed or receipt.status is Status.REJECTED for receipt in some)
    return found, min(looked_at, len(runs))


def print_uploads(console: Console, found: StackStatus, wanted: Wanted = ALL) -> None:
    """Print a line for each upload with its state and row counts, followed by the reasons for its outcome."""
    if not found.in_progress and not found.failed and not found.receipts and not found.waiting:
        if wanted != ALL:
            console.print("No matching uploads.")
        elif not found.queue.waiting:
            console.print("No uploads yet. Try: sluice upload FILE --dataset NAME")
        return
    console.print(f"{'when (UTC)':<19}  {'run':<8}  {'state':<9}  file", style="dim")
    # These are plain lines, because a table would truncate long keys and reasons on a narrow terminal.
    for upload in found.waiting:
        _print_line(console, upload.event_time or "", upload.run_id, "[blue]waiting  [/]", upload.key, "")
    _print_unfinished(console, found)
    for receipt in found.receipts:
        style = "green" if receipt.status == "published" else "yellow"
        state = f"[{style}]{receipt.status:<9}[/]"
        _print_line(console, receipt.created_at, receipt.run_id, state, receipt.source.key, rows_of(receipt))
        for detail in first_of(details_of(receipt), _DETAILS_SHOWN):
            console.out(f"{_INDENT}{detail}", style="dim")
    if found.older:
        console.out(f"{_INDENT}and {found.older:,} older uploads; --limit shows more", style="dim")


def _print_unfinished(console: Console, found: StackStatus) -> None:
    before = {attempt.run_id: attempt for attempt in found.failed}
    for held in found.in_progress:
        _print_line(console, held.note.at, held.noted.run_id, "[cyan]running  [/]", held.noted.upload.key, "")
        if attempt := before.pop(held.noted.run_id, None):
            console.out(f"{_INDENT}the previous attempt failed: {attempt.reason}", style="dim")
    for attempt in before.values():
        state = "[bold red]failed   [/]" if attempt.given_up else "[red]retrying [/]"
        _print_line(console, attempt.at, attempt.run_id, state, attempt.upload.key, "")
        console.out(f"{_INDENT}{attempt.reason}", style="dim")
    if found.failed_count > len(found.failed):
        console.out(f"{_INDENT}and {found.failed_count - len(found.failed):,} more that failed", style="dim")


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
        yield "paused: uploads wait in the queue; to resume: sluice resume"
    if found.published_contracts:
        yield f"published contracts: {', '.join(map(visible_line, found.published_contracts))}"
    if found.unrecorded:
        least = "at least " if found.more_notes else ""
        yield f"not recorded in Prefect yet: {least}{found.unrecorded:,}"


def _document(cloud: DeployedStack, found: StackStatus) -> dict[str, Any]:
    return {
        "prefect_ui_url": cloud.prefect_ui_url,
        "aws_endpoint_url": cloud.aws_endpoint_url,
        "region": cloud.region,
        "paused": found.is_paused,
        "published_contracts": list(found.published_contracts),
        "queue": found.queue._asdict(),
        "in_progress": [_held_fields(held) for held in found.in_progress],
        "failed": [_attempt_fields(attempt) for attempt in found.failed],
        "failed_count": found.failed_count,
        "waiting": [{"run_id": one.run_id, "bucket": one.bucket, "key": one.key} for one in found.waiting],
        "older": found.older,
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
