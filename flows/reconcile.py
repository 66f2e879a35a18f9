"""Find uploads whose events were lost, and dispatch them again (the reconcile flow).

An event is lost if Lambda is overloaded for hours, if files arrive before the notification is configured, or if the
local cloud (an AWS emulator) is killed while it has events in memory. The flow therefore compares the landing bucket
with the receipts (flows/pipeline/lost_uploads.py). It dispatches a lost upload in the same way as the Lambda and with
the same run ID, so it is harmless if an upload is dispatched twice, or if its event arrives late.

If Sluice gave up on an upload, its message is in the dead-letter queue. The flow reports such an upload with the reason
for its last failure, and dispatches it again only on request, because otherwise every hourly run would retry it.

On request, the flow also rebuilds the index and the runs in Prefect from the receipts (flows/pipeline/rebuild.py).
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from blocks.drains import Drains
from blocks.queue_age import oldest_message_since
from flows.composition import drains_of, parts_of_environment
from flows.observability.recorder import Recorder
from flows.pipeline.attempts import Attempt, AttemptUnreadable, FoundAttempt, find_attempt, reopen_attempt
from flows.pipeline.commit import find_orphaned
from flows.pipeline.delivery import dataset_of
from flows.pipeline.errors import EventLost
from flows.pipeline.held_uploads import HeldUploads, read_held_uploads
from flows.pipeline.job import Parts
from flows.pipeline.lost_uploads import Finder, FoundUploads, Window
from flows.pipeline.rebuild import Rebuilt
from flows.pipeline.rebuild import rebuild as rebuild_all
from flows.refinery.errors import SluiceError, TerminalError
from lambda_trigger.ignored_names import is_ignored
from lambda_trigger.message import UploadMessage


class StateMachineUnknown(TerminalError):
    """SLUICE_STATE_MACHINE_ARN, which reconcile needs to dispatch uploads, is not set."""


@dataclass(frozen=True)
class Reconciled:
    """The result of one run of the reconcile flow."""

    found: FoundUploads  # the uploads without a receipt, by state
    window: Window  # the period that was checked
    age_known: bool  # whether the age of the oldest message in the queue is known; if not, no upload counts as lost
    held: HeldUploads  # the uploads that tasks hold
    orphaned: int = 0  # number of outputs that no receipt references, or only the receipt of a replaced version
    rebuilt: Rebuilt | None = None  # the result of rebuilding from receipts; None if that was not requested


@flow(
    name="reconcile",
    description="Find uploads whose event was lost, and dispatch them again.",
    persist_result=False,
)
def reconcile(
    dry_run: bool = False,
    grace_minutes: Annotated[int, Field(ge=0, le=1440)] = 15,
    lookback_days: Annotated[int, Field(ge=1, le=3650)] = 7,
    max_uploads: Annotated[int, Field(ge=1, le=10_000)] = 500,
    given_up_too: bool = False,
    prefix: str = "",
    rebuild: bool = False,
) -> State[Any]:
    """Compare the landing bucket with the receipts, dispatch lost uploads, and delete orphaned outputs.

    Prefect's form for a custom run shows these descriptions.

    Args:
        dry_run: Only show what would be dispatched and deleted.
        grace_minutes: Skip uploads that are younger than this, because they may still be in progress.
        lookback_days: Check uploads and outputs that are at most this many days old.
        max_uploads: Dispatch at most this many lost uploads; the next run dispatches the others.
        given_up_too: Also dispatch uploads that Sluice gave up on. Remove the cause first.
        prefix: Check only keys with this prefix, such as incoming/orders/. If empty, all uploads are checked.
        rebuild: Also rebuild the index from all receipts, and the runs of the last lookback_days days in Prefect.
    """
    parts = parts_of_environment()
    incoming = parts.settings.incoming_prefix
    if prefix and not prefix.startswith(incoming):
        return Failed(message=f"Invalid parameters: uploads are under {incoming}, so none has the prefix {prefix}")
    drains = _drains_of(parts)
    now, grace = datetime.now(UTC), timedelta(minutes=grace_minutes)
    window = Window(now - timedelta(days=lookback_days), now - grace)
    oldest = oldest_message_since(parts.settings.queue_url)
    held = read_held_uploads(parts.store)
    found = _finder(parts, held, oldest - grace if oldest else None).find(window, prefix or incoming, max_uploads)
    _log_found(found, window)
    rows = list(_dispatch_all(parts, drains, found, dry_run=dry_run, given_up_too=given_up_too))
    rebuilt = rebuild_all(parts, window.since, Recorder(parts).record, dry_run=dry_run) if rebuild else None
    orphaned = _delete_orphaned(parts, window, dry_run=dry_run)  # done last, because clean-up can wait
    done = Reconciled(found, window, oldest is not None, held, orphaned, rebuilt)
    create_table_artifact(key="reconcile", table=rows, description=reconcile_summary(done, dry_run=dry_run))
    return _final_state(found, rows, dry_run=dry_run)


def _finder(parts: Parts, held: HeldUploads, none_queued_before: datetime | None) -> Finder:
    settings = parts.settings
    return Finder(
        parts.store,
        held,
        none_queued_before,
        is_data=lambda key: not is_ignored(key, settings.incoming_prefix, settings.ignored_names),
    )


def _log_found(found: FoundUploads, window: Window) -> None:
    get_run_logger().info(
        "%s uploads arrived between %s and %s: %s lost, %s given up, %s in progress.",
        f"{found.looked_at:,}",
        window.since.isoformat(timespec="minutes"),
        window.until.isoformat(timespec="minutes"),
        f"{len(found.lost):,}{'+' if found.more else ''}",
        f"{found.given_up_count:,}",
        f"{found.under_way:,}",
    )


def _drains_of(parts: Parts) -> Drains:
    settings = parts.settings
    if not settings.state_machine_arn:
        raise StateMachineUnknown(
            "SLUICE_STATE_MACHINE_ARN is set neither in the environment nor in the stack's settings block; set it to "
            "the stack's output StateMachineArn"
        )
    return drains_of(settings)


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
    parts: Parts, drains: Drains, found: FoundUploads, *, dry_run: bool, given_up_too: bool
) -> Iterator[dict[str, Any]]:
    """Dispatch lost uploads and, with `given_up_too`, those that Sluice gave up on. Yield one row per upload for the
    table artifact in Prefect."""
    for upload in found.lost:
        yield _row(upload, "lost", _WOULD_BE if dry_run else _dispatch(parts, drains, upload))
    for upload, reason in found.given_up:
        done = "redrive its message"
        if given_up_too:
            done = _WOULD_BE if dry_run else _dispatch(parts, drains, upload)
        yield _row(upload, f"given up: {reason}", done)


def _row(upload: UploadMessage, what: str, done: str) -> dict[str, Any]:
    return {
        "key": upload.key,
        "version": upload.version_id,
        "arrived": upload.event_time,
        "bytes": upload.size_bytes,
        "run": upload.run_id,
        "what": what,
        "done": done,
    }


def _dispatch(parts: Parts, drains: Drains, upload: UploadMessage) -> str:
    """Dispatch an upload, mark its failed attempt as being retried, and return the result for the table in Prefect."""
    try:
        before = _attempt_before(parts, upload)
        drains.dispatch(upload)
        reopen_attempt(parts.store, before)
    except SluiceError as error:  # go on with the others; the next run tries this one again
        get_run_logger().warning("Not dispatched: %s: %s", type(error).__name__, error)
        return _FAILED + type(error).__name__
    get_run_logger().info("Dispatched: %s, run %s.", upload.key, upload.run_id)
    return _DISPATCHED


def _attempt_before(parts: Parts, upload: UploadMessage) -> FoundAttempt:
    """Return the upload's last failed attempt or, if none can be read, a new one with the error EventLost. Without a
    stored attempt, the next run of the flow would count the upload as lost again while its new message is queued."""
    with suppress(AttemptUnreadable):
        if found := find_attempt(parts.store, upload.run_id):
            return found
    lost = EventLost("no event arrived for the upload, or its message expired; reconcile sent a new message")
    dataset = dataset_of(upload, parts)
    return FoundAttempt(Attempt.of(upload, lost, dataset=dataset, receive_count=0, task_arn=None), None)


def reconcile_summary(done: Reconciled, *, dry_run: bool) -> str:
    """Return a summary of what the flow found and did, in Markdown."""
    found, window = done.found, done.window
    lines = [
        f"**{found.looked_at:,}** uploads arrived between {window.since:%Y-%m-%d %H:%M} and "
        f"{window.until:%Y-%m-%d %H:%M} UTC. Of these **{len(found.lost):,}** are lost: they have no receipt and no "
        "failed attempt, no task holds them, and they are older than every message in the queue"
        + (" (nothing was done: dry run)." if dry_run else "."),
        f"{found.under_way:,} are in progress: a task holds them, or they may be in the queue.",
    ]
    if not done.age_known:
        lines.append(
            "The queue has messages, and CloudWatch does not report how old the oldest is (in the local cloud it never "
            "does). So no upload counts as lost: run this again when the queue is empty."
        )
    if found.more:
        lines.append("There are more: the next run continues where this one stopped.")
    if found.given_up_count:
        lines.append(
            f"Sluice gave up on {found.given_up_count:,} uploads for the reasons below. Remove the cause, then redrive "
            "them (`sluice redrive`), or dispatch them again with `given_up_too`."
        )
    if done.held.unreadable:
        lines.append(f"Unreadable batch notes: {', '.join(sorted(done.held.unreadable))}.")
    if done.rebuilt:
        lines.append(_rebuilt_summary(done.rebuilt, dry_run=dry_run))
    if done.orphaned:
        verb = "would be" if dry_run else "were"
        lines.append(f"{done.orphaned:,} orphaned outputs {verb} deleted.")
    if found.unidentified:
        lines.append(
            f"{found.unidentified:,} arrived while the landing bucket had no versioning, so their run IDs are unknown: "
            "turn versioning on, and start a manual run for each upload that has no result."
        )
    return "\n\n".join(lines)


def _rebuilt_summary(rebuilt: Rebuilt, *, dry_run: bool) -> str:
    verb = "would be" if dry_run else "were"
    text = (
        f"From {rebuilt.receipts:,} receipts, {rebuilt.entries:,} index entries {verb} written. Prefect shows the runs "
        f"of {rebuilt.recorded:,} receipts."
    )
    if rebuilt.unreadable:
        text += f" Unreadable receipts: {', '.join(sorted(rebuilt.unreadable))}."
    if rebuilt.unknown:
        text += f" Entries of datasets without a contract were not changed: {', '.join(sorted(rebuilt.unknown))}."
    return text


def _final_state(found: FoundUploads, rows: list[dict[str, Any]], *, dry_run: bool) -> State[Any]:
    failed = sum(row["done"].startswith(_FAILED) for row in rows)
    if failed:
        return Failed(message=f"{failed:,} of {len(rows):,} uploads could not be dispatched; see the log.")
    dispatched = sum(row["done"] in (_DISPATCHED, _WOULD_BE) for row in rows)
    if dispatched:
        verb = "would be" if dry_run else "were"
        return Completed(message=f"{dispatched:,} uploads {verb} dispatched.")
    if found.given_up_count:
        return Completed(message=f"No upload was lost; Sluice gave up on {found.given_up_count:,}: redrive these.")
    return Completed(message=f"None of {found.looked_at:,} uploads was lost.")
