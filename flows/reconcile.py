"""Reconcile: find uploads whose event was lost, and dispatch them again.

S3 may drop an event when Lambda is overloaded for hours, a notification may be configured after the first files
arrived, and an embedded cloud that is killed loses the events in its memory. So the landing bucket is compared with the
receipts: an object version that has neither a receipt nor an execution some time after it arrived was never dispatched.
Reconcile dispatches it as the Lambda would have done, under the same run id, so dispatching it twice, or while a late
event arrives, is harmless.

An upload whose execution ended without a receipt was dispatched and given up: its message is in the dead-letter queue.
Reconcile reports it, and dispatches it again only on request: otherwise every hourly run would retry it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from blocks.executions import Executions
from blocks.object_store import ObjectStore, ObjectVersion
from flows.composition import parts_of_environment
from flows.pipeline.commit import find_orphaned, has_receipt
from flows.pipeline.job import Parts
from flows.refinery.errors import SluiceError, TerminalError
from lambda_trigger.ignored_names import is_ignored
from lambda_trigger.message import UploadMessage

# Step Functions keeps an execution for 90 days; an older upload would look as if it never had one.
MAX_LOOKBACK_DAYS = 80
_LOOKS_AT_ONCE = 8
_RUNNING = "RUNNING"


class StateMachineUnknown(TerminalError):
    """SLUICE_STATE_MACHINE_ARN, which reconcile needs to dispatch uploads, is not set."""


@dataclass(frozen=True, slots=True)
class Window:
    """The period of uploads to check: older ones are skipped, younger ones may still be in progress."""

    since: datetime
    until: datetime

    def holds(self, moment: datetime) -> bool:
        """Return whether `moment` is in the window."""
        return self.since <= moment <= self.until


@dataclass
class ReconcileResult:
    """The uploads in the window, by state.

    Attributes:
        looked_at: number of object versions in the window.
        under_way: number of uploads that have a running execution and no receipt yet.
        lost: uploads that were never dispatched, at most `max_found`.
        given_up: uploads whose execution ended without a receipt, with its status; the first `max_found`.
        given_up_count: number of all given-up uploads.
        unidentified: number of uploads made while the bucket had no versioning; only S3's event identifies their run.
        more: whether the search stopped because `max_found` lost uploads were found.
        orphaned: number of data objects that no receipt references, or only a superseded one.
    """

    looked_at: int = 0
    under_way: int = 0
    lost: list[UploadMessage] = field(default_factory=list)
    given_up: list[tuple[UploadMessage, str]] = field(default_factory=list)
    given_up_count: int = 0
    unidentified: int = 0
    more: bool = False
    orphaned: int = 0


def find_lost(
    store: ObjectStore,
    executions: Executions,
    window: Window,
    prefix: str,
    max_found: int,
    *,
    is_data: Callable[[str], bool],
    page_size: int = 1000,
) -> ReconcileResult:
    """Compare the landing bucket with receipts and executions, page by page, with one page in memory.

    Args:
        prefix: prefix of the keys to check.
        max_found: number of lost uploads to stop at, and of given-up uploads to list.
        is_data: whether the trigger dispatches a key.
    """
    found = ReconcileResult()
    for upload in _without_receipt(store, window, prefix, page_size, is_data, found):
        if len(found.lost) == max_found:
            found.more = True
            break
        status = executions.status(upload)
        if status is None:
            found.lost.append(upload)
        elif status == _RUNNING:
            found.under_way += 1
        elif not has_receipt(store, upload.run_id):  # the receipt may have been written since the first check
            found.given_up_count += 1
            if len(found.given_up) < max_found:
                found.given_up.append((upload, status))
    return found


def _without_receipt(
    store: ObjectStore,
    window: Window,
    prefix: str,
    page_size: int,
    is_data: Callable[[str], bool],
    found: ReconcileResult,
) -> Iterator[UploadMessage]:
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        for page in store.versions(store.landing_bucket, prefix, page_size=page_size):
            # The trigger ignores folder markers as well: keys that end in a slash, without content.
            files = (version for version in page if version.size_bytes or not version.key.endswith("/"))
            due = [version for version in files if window.holds(version.last_modified) and is_data(version.key)]
            uploads = [_upload(store.landing_bucket, version) for version in due if version.version_id]
            found.looked_at += len(due)
            found.unidentified += len(due) - len(uploads)
            done = pool.map(lambda upload: has_receipt(store, upload.run_id), uploads)
            yield from (upload for upload, is_done in zip(uploads, done, strict=True) if not is_done)


def _upload(bucket: str, version: ObjectVersion) -> UploadMessage:
    return UploadMessage(
        bucket=bucket,
        key=version.key,
        version_id=version.version_id,
        etag=version.etag,
        size_bytes=version.size_bytes,
        event_time=version.last_modified.astimezone(UTC).isoformat(timespec="milliseconds"),
    )


@flow(
    name="reconcile",
    description="Find uploads whose event was lost, and dispatch them again.",
    persist_result=False,
)
def reconcile(
    dry_run: bool = False,
    grace_minutes: Annotated[int, Field(ge=0, le=1440)] = 15,
    lookback_days: Annotated[int, Field(ge=1, le=MAX_LOOKBACK_DAYS)] = 7,
    max_uploads: Annotated[int, Field(ge=1, le=10_000)] = 500,
    given_up_too: bool = False,
    prefix: str = "",
) -> State[Any]:
    """Compare the landing bucket with the receipts, dispatch lost uploads, and delete orphaned outputs.

    Prefect's form for a custom run shows these texts.

    Args:
        dry_run: Only show what would be dispatched and deleted.
        grace_minutes: Skip uploads younger than this: they may still be in progress.
        lookback_days: Check uploads and outputs of this many days.
        max_uploads: Dispatch at most this many; the next run continues from there.
        given_up_too: Also dispatch uploads whose execution ended without a receipt. Remove the cause first.
        prefix: Check only keys with this prefix, such as incoming/orders/; empty: all uploads.
    """
    parts = parts_of_environment()
    executions = _executions_of(parts)
    now = datetime.now(UTC)
    window = Window(now - timedelta(days=lookback_days), now - timedelta(minutes=grace_minutes))
    settings = parts.settings
    found = find_lost(
        parts.store,
        executions,
        window,
        prefix or settings.incoming_prefix,
        max_uploads,
        is_data=lambda key: not is_ignored(key, settings.incoming_prefix, settings.ignored_names),
    )
    get_run_logger().info(
        "%s uploads arrived between %s and %s: %s lost, %s given up, %s under way.",
        f"{found.looked_at:,}",
        window.since.isoformat(timespec="minutes"),
        window.until.isoformat(timespec="minutes"),
        f"{len(found.lost):,}{'+' if found.more else ''}",
        f"{found.given_up_count:,}",
        f"{found.under_way:,}",
    )
    rows = list(_dispatch_all(executions, found, dry_run=dry_run, given_up_too=given_up_too))
    found.orphaned = _delete_orphaned(parts, window, dry_run=dry_run)  # last: clean-up can wait, uploads cannot
    create_table_artifact(key="reconcile", table=rows, description=reconcile_summary(found, window, dry_run=dry_run))
    return _final_state(found, rows, dry_run=dry_run)


def _executions_of(parts: Parts) -> Executions:
    settings = parts.settings
    if not settings.state_machine_arn:
        raise StateMachineUnknown(
            "SLUICE_STATE_MACHINE_ARN is not set, in the environment or in the block: set it to the stack's output "
            "StateMachineArn"
        )
    return Executions(state_machine_arn=settings.state_machine_arn, queue_url=settings.queue_url)


def _delete_orphaned(parts: Parts, window: Window, *, dry_run: bool) -> int:
    count = 0
    for key in find_orphaned(parts, window.holds):
        count += 1
        if not dry_run:
            parts.store.delete(key)
    if count:
        get_run_logger().info("%s orphaned outputs%s.", f"{count:,}", "" if dry_run else " deleted")
    return count


_DISPATCHED, _WOULD_BE, _FAILED = "dispatched", "would be dispatched", "not dispatched: "


def _dispatch_all(
    executions: Executions, found: ReconcileResult, *, dry_run: bool, given_up_too: bool
) -> Iterator[dict[str, Any]]:
    """Dispatch the uploads, and yield a row of the table in the UI for each."""
    for upload in found.lost:
        yield _row(upload, "lost", _dispatch(executions, upload, dry_run=dry_run))
    for upload, status in found.given_up:
        done = _dispatch(executions, upload, dry_run=dry_run) if given_up_too else "redrive its message"
        yield _row(upload, f"given up ({status})", done)


def _row(upload: UploadMessage, what: str, done: str) -> dict[str, Any]:
    return {
        "key": upload.key,
        "version": upload.version_id,
        "came": upload.event_time,
        "bytes": upload.size_bytes,
        "run": upload.run_id,
        "what": what,
        "done": done,
    }


def _dispatch(executions: Executions, upload: UploadMessage, *, dry_run: bool) -> str:
    """Dispatch an upload; return what was done."""
    if dry_run:
        return _WOULD_BE
    try:
        executions.dispatch(upload)
    except SluiceError as error:  # go on with the others; the next run tries this one again
        get_run_logger().warning("Not dispatched: %s: %s", type(error).__name__, error)
        return _FAILED + type(error).__name__
    get_run_logger().info("Dispatched: %s, run %s.", upload.key, upload.run_id)
    return _DISPATCHED


def reconcile_summary(found: ReconcileResult, window: Window, *, dry_run: bool) -> str:
    """Return what was found, in Markdown."""
    lines = [
        f"**{found.looked_at:,}** uploads arrived between {window.since:%Y-%m-%d %H:%M} and "
        f"{window.until:%Y-%m-%d %H:%M} UTC. Of these **{len(found.lost):,}** have neither a receipt nor an execution"
        + (" (nothing was done: dry run)." if dry_run else "."),
        f"{found.under_way:,} are under way.",
    ]
    if found.more:
        lines.append("There are more: the next run continues where this one stopped.")
    if found.given_up_count:
        lines.append(
            f"{found.given_up_count:,} were dispatched and given up: their messages are in the queue or in the "
            "dead-letter queue. Remove the cause, then redrive them; `given_up_too` dispatches them again."
        )
    if found.orphaned:
        done = "would be" if dry_run else "were"
        lines.append(f"{found.orphaned:,} orphaned outputs {done} deleted.")
    if found.unidentified:
        lines.append(
            f"{found.unidentified:,} came while the landing bucket had no versioning, so their runs are unknown: turn "
            "versioning on, and start those by hand that have no result."
        )
    return "\n\n".join(lines)


def _final_state(found: ReconcileResult, rows: list[dict[str, Any]], *, dry_run: bool) -> State[Any]:
    failed = sum(row["done"].startswith(_FAILED) for row in rows)
    if failed:
        return Failed(message=f"{failed:,} of {len(rows):,} lost uploads could not be dispatched; see the log.")
    dispatched = sum(row["done"] in (_DISPATCHED, _WOULD_BE) for row in rows)
    if dispatched:
        verb = "would be" if dry_run else "were"
        return Completed(message=f"{dispatched:,} lost uploads {verb} dispatched.")
    if found.given_up_count:
        return Completed(message=f"No upload was lost; {found.given_up_count:,} were given up: redrive their messages.")
    return Completed(message=f"None of {found.looked_at:,} uploads was lost.")
