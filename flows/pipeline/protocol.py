"""The decisions of the commit protocol, as pure functions. commit.py acts on them.

A commit writes the data under run-scoped keys, then the receipt (`If-None-Match: *`), then the index entry of the
source key. Then it deletes replaced outputs and, last, the message. After a crash between any two of these steps,
repeating all of them gives the same result.

An output is deleted only if a receipt for its attempt, or for a later one, exists. Then no worker can commit that
attempt any more, so an output that is about to be committed is never deleted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from pydantic import BaseModel, ConfigDict

from flows.pipeline.document import Document
from flows.pipeline.receipt import Receipt, Status
from flows.refinery.errors import TerminalError

INDEX = "index/"
_OUTPUT_NAME = re.compile(r"(?P<run_id>[0-9a-f]{32})-(?P<attempt>[0-9]+)-[0-9a-f]{16}\.")


class ReceiptConflict(TerminalError):
    """Another worker committed a different result for the same attempt, or processed the file during a repair.

    The other worker's receipt is kept. Results differ if the contract or the code changed while both were working.
    """


class IndexUnreadable(TerminalError):
    """An object under index/ is not an index entry with a schema version that this release can read.

    Rebuild the index from the receipts, or restore the object's previous version.
    """


def is_done(existing: Receipt | None, attempt: int) -> bool:
    """Return whether an attempt is done, because a receipt of the same attempt or a later one exists."""
    return existing is not None and existing.attempt >= attempt


def decide_after_refused_commit(ours: Receipt, theirs: Receipt) -> Receipt:
    """Return `theirs`, a stored receipt of the same or a later attempt, which ours must not replace. Raise
    ReceiptConflict if it has a different result for the same attempt."""
    if theirs.attempt > ours.attempt or theirs.outcome_digest == ours.outcome_digest:
        return theirs
    raise ReceiptConflict(
        f"run {ours.run_id}, attempt {ours.attempt}: a receipt with a different result was committed first "
        f"(status {theirs.status}, contract {theirs.contract.content_hash[:12]}; "
        f"ours: {ours.status}, {ours.contract.content_hash[:12]}). That receipt is kept. "
        "To check the file again under the current contract, start the flow with force=true."
    )


class IndexedRun(BaseModel):
    """A run, as an index entry stores it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    attempt: int
    status: Status
    sequencer: str | None
    last_modified: str
    rows_published: int
    rows_quarantined: int
    created_at: str
    data_keys: tuple[str, ...]

    @classmethod
    def of(cls, receipt: Receipt) -> IndexedRun:
        return cls(
            run_id=receipt.run_id,
            attempt=receipt.attempt,
            status=receipt.status,
            sequencer=receipt.source.sequencer,
            last_modified=receipt.source.last_modified or "",
            rows_published=receipt.rows.published,
            rows_quarantined=receipt.rows.quarantined_total,
            created_at=receipt.created_at,
            data_keys=tuple(output.key for output in receipt.outputs if output.is_retirable),
        )

    def same_run(self, other: IndexedRun) -> bool:
        """Return whether both runs are for the same object version; their attempts may differ."""
        return self.run_id == other.run_id

    def is_ordered_by_s3(self, other: IndexedRun) -> bool:
        """Return whether the sequencers of both runs show which object version is newer."""
        return bool(self.sequencer and other.sequencer) and self.age(other) != 0

    def age(self, other: IndexedRun) -> int:
        """Compare two object versions: return 1 if this one was written after the other, -1 if it was written before,
        or 0 if the order is unknown.

        If both have a sequencer, the sequencers are compared as hexadecimal strings, the shorter one padded with zeros
        on the right (docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html). Otherwise
        LastModified is compared; where S3's list of versions is known, `_supersedes` uses that instead.
        """
        if self.sequencer and other.sequencer:
            width = max(len(self.sequencer), len(other.sequencer))
            mine, theirs = (sequencer.upper().ljust(width, "0") for sequencer in (self.sequencer, other.sequencer))
        else:
            # Compare whole seconds: an event's time has a fraction, LastModified has none.
            mine, theirs = (run.last_modified[: len("2026-01-01T00:00:00")] for run in (self, other))
        return (mine > theirs) - (mine < theirs)


class IndexEntry(Document):
    """The current state of one source key in a dataset. It is derived from receipts, and can be rebuilt from them."""

    noun, unreadable = "an index entry", IndexUnreadable

    bucket: str
    key: str
    dataset: str
    current: IndexedRun | None = None  # the published run whose data readers see; None if there is none
    latest: IndexedRun  # the run of the newest object version, published or rejected
    # the newest run that was current until a forced re-run rejected its file, or moved it to another dataset. Older
    # versions cannot become current again, because their outputs may have been deleted when it became current.
    withdrawn: IndexedRun | None = None
    retired: tuple[str, ...] = ()  # data keys that were replaced and still have to be deleted
    # the runs that were published, if re-uploads append. A run's receipt shows whether it is still published
    appended: tuple[str, ...] = ()


def index_key(dataset: str, bucket: str, key: str) -> str:
    """Return the object key of a source key's index entry. The source key is hashed, so that it cannot escape the
    prefix."""
    return f"{INDEX}{dataset}/{hashlib.sha256(f'{bucket}/{key}'.encode()).hexdigest()[:32]}.json"


def runs_of_unknown_order(entry: IndexEntry | None, receipt: Receipt) -> frozenset[str]:
    """Return the IDs of the runs whose order only S3's list of versions shows: the receipt's run, and those runs in the
    index entry that cannot be compared with it. Return an empty set if the order is known.

    At least one of these runs has no sequencer, because it was started without an S3 event. LastModified cannot replace
    the sequencer, because it has whole seconds, and for a multipart upload it is the time when the upload was initiated
    (docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html).
    """
    run = IndexedRun.of(receipt)
    known = (entry.current, entry.latest, entry.withdrawn) if entry else ()
    open_ = {other.run_id for other in known if other and not other.same_run(run) and not other.is_ordered_by_s3(run)}
    return frozenset({run.run_id, *open_}) if open_ else frozenset()


def updated_entry(
    entry: IndexEntry | None, receipt: Receipt, *, replace: bool, newest_first: Sequence[str] = ()
) -> IndexEntry:
    """Return the index entry of a source key after applying `receipt`.

    Applying a receipt twice, or receipts in a different order, gives the same entry: the newest published version is
    current, an older one never replaces it, and a forced re-run replaces the earlier attempt at the same version.

    Args:
        entry: the stored entry; None if there is none yet.
        receipt: the receipt that was committed.
        replace: whether the outputs of older versions of the key are retired (the contract's `on_reupload`).
        newest_first: the runs that `runs_of_unknown_order` returns, in the order in which S3 lists their versions.
    """
    run = IndexedRun.of(receipt)
    supersedes = partial(_supersedes, newest_first=newest_first)
    if entry is None:
        entry = IndexEntry(
            bucket=receipt.source.bucket, key=receipt.source.key, dataset=receipt.contract.dataset, latest=run
        )
    current, retired = _current(entry, run, supersedes, replace=replace)
    kept = set(current.data_keys) if current else set()
    return entry.model_copy(
        update={
            "current": current,
            "latest": run if supersedes(run, entry.latest) else entry.latest,
            "withdrawn": run if entry.current is not None and current is None else entry.withdrawn,
            "retired": tuple(sorted((set(entry.retired) | set(retired)) - kept)),
            "appended": entry.appended if replace else _appended(entry, run),
        }
    )


def _current(
    entry: IndexEntry, run: IndexedRun, supersedes: Callable[[IndexedRun, IndexedRun], bool], *, replace: bool
) -> tuple[IndexedRun | None, tuple[str, ...]]:
    """Return which run is current after `run` has been applied to an entry, and the data keys that this retires."""
    current = entry.current
    if current is not None and current.same_run(run):
        return _other_attempt(current, run)
    if run.status is not Status.PUBLISHED:
        return current, ()  # a rejected re-upload leaves the last good output in place
    if entry.withdrawn is not None and not supersedes(run, entry.withdrawn):
        return current, run.data_keys if replace else ()  # its outputs may already be deleted
    if current is None:
        return run, ()
    newer, older = (run, current) if supersedes(run, current) else (current, run)
    return newer, older.data_keys if replace else ()


def _other_attempt(current: IndexedRun, run: IndexedRun) -> tuple[IndexedRun | None, tuple[str, ...]]:
    """Return the current run and the retired data keys after applying `run`, a different attempt at the current
    version. The later attempt wins, even if it rejects the file."""
    if run.attempt <= current.attempt:
        return current, tuple(set(run.data_keys) - set(current.data_keys))
    if run.status is not Status.PUBLISHED:
        return None, current.data_keys
    return run, current.data_keys


def _appended(entry: IndexEntry, run: IndexedRun) -> tuple[str, ...]:
    published = {each.run_id for each in (entry.current, run) if each and each.status is Status.PUBLISHED}
    return tuple(sorted({*entry.appended, *published}))


def entry_without(entry: IndexEntry, receipt: Receipt) -> IndexEntry:
    """Return a dataset's index entry after a forced re-run moved the file to another dataset. The outputs that an
    earlier attempt published in this dataset are retired."""
    current = entry.current
    if current is None or current.run_id != receipt.run_id or current.attempt >= receipt.attempt:
        return entry
    retired = tuple(sorted({*entry.retired, *current.data_keys}))
    return entry.model_copy(update={"current": None, "withdrawn": current, "retired": retired})


def _supersedes(run: IndexedRun, other: IndexedRun, newest_first: Sequence[str]) -> bool:
    if run.same_run(other):
        return run.attempt >= other.attempt
    listed = [run_id for run_id in newest_first if run_id in (run.run_id, other.run_id)]
    if run.is_ordered_by_s3(other) or (len(listed) < 2 and run.age(other)):
        return run.age(other) > 0
    if listed:
        return listed[0] == run.run_id  # if S3 lists only one of them, the other was removed as an old version
    # S3 lists neither: use a fixed rule, so that the result does not depend on the order of arrival.
    return run.run_id > other.run_id


def orphaned_keys(keys: Iterable[str], receipt: Receipt) -> tuple[str, ...]:
    """Return the data keys of a run that its receipt does not reference.

    They were left by a worker that died before it could commit, or whose result was not the one that was committed.
    Outputs of a later attempt are not included, because they may be about to be committed.
    """
    referenced = {output.key for output in receipt.outputs}
    return tuple(key for key in keys if key not in referenced and _is_covered(key, receipt))


def run_of(key: str) -> str | None:
    """Return the run ID in the key of an output, or None if the key does not have the form of an output's key."""
    name = _OUTPUT_NAME.match(key.rsplit("/", 1)[-1])
    return name["run_id"] if name else None


def superseded_keys(
    keys: Iterable[str], receipt: Receipt, entry: IndexEntry | None, *, newest_first: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the data keys of a run that can be deleted: the orphaned keys or, if a newer version of the source key is
    current, all keys except those of later attempts.

    Args:
        entry: the index entry of the source key; None if a re-upload does not replace earlier outputs in this dataset.
        newest_first: the runs that `runs_of_unknown_order` returns, in the order in which S3 lists their versions.
    """
    keys, run = tuple(keys), IndexedRun.of(receipt)
    current = entry.current if entry else None
    if current is None or current.same_run(run) or not _supersedes(current, run, newest_first):
        return orphaned_keys(keys, receipt)
    return tuple(key for key in keys if _is_covered(key, receipt))


def _is_covered(key: str, receipt: Receipt) -> bool:
    name = _OUTPUT_NAME.match(key.rsplit("/", 1)[-1])
    return name is not None and name["run_id"] == receipt.run_id and int(name["attempt"]) <= receipt.attempt
