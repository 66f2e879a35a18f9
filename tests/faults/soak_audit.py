"""Audits the buckets and Prefect after a soak, and finds uploads and rows that are lost, duplicated, not shown or
wrong.

It reads only S3 and Prefect's API, and compares them with the outcomes that the generator of the files expects.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from flows.observability.run_identity import idempotency_key
from flows.pipeline.protocol import IndexedRun, IndexEntry, index_key
from flows.pipeline.receipt import Receipt, Status, receipt_key
from tests.faults.soak_files import EVENTS
from tests.faults.soak_ground import Ground
from tests.faults.soak_uploads import Uploaded

_ATTEMPTS = 3  # the upload, a manual re-run, and a forced re-run through the queue


@dataclass
class Audit:
    """The result of an audit.

    Attributes:
        lost: uploads without a receipt, and rows that must be published but are in no published object.
        doubled: rows in two published objects or in an object that must not contain them, objects under data/ that are
            not a current output, and attempts with two receipts.
        wrong: receipts, index entries and flow runs that contradict the expected outcome.
        unrecorded: uploads that have no flow run for any of their attempts.
        duplicates_published: the number of rows that are published more than once.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    receipts: int = 0
    published: int = 0
    rejected: int = 0
    duplicates_published: int = 0

    @property
    def clean(self) -> bool:
        """Return whether no problem was found."""
        return not (self.lost or self.doubled or self.wrong or self.unrecorded)


def audit(ground: Ground, uploads: list[Uploaded], forced: dict[str, int]) -> Audit:
    """Audit everything, and return the result.

    Args:
        forced: the attempt that a receipt must have reached, by run ID.
    """
    found = Audit()
    _every_version_was_handed_in(ground, uploads, found)
    standing = _receipts(ground, uploads, found)
    for uploaded in uploads:
        receipt = standing.get(uploaded.run_id)
        if receipt is not None:
            _receipt_is_right(ground, uploaded, receipt, forced.get(uploaded.run_id, 0), found)
    current = _current(ground, uploads, standing, found)
    _rows_are_where_they_belong(ground, current, found)
    _prefect_shows_each(ground, standing, found)
    return found


def _prefect_shows_each(ground: Ground, standing: dict[str, Receipt], found: Audit) -> None:
    """Check that each upload has a flow run, and that the run for the receipt's attempt has the receipt's outcome.

    Prefect has at most one run for each idempotency key. An upload whose receipt comes from a manual re-run needs no
    flow run, because the soak starts those re-runs without Prefect.
    """
    keys = {idempotency_key(run_id, attempt): run_id for run_id in standing for attempt in range(_ATTEMPTS)}
    runs = {run["idempotency_key"]: run for run in ground.flow_runs(list(keys))}
    shown = {keys[key] for key in runs}
    through_the_queue = {run_id for run_id, receipt in standing.items() if receipt.chain.message_id}
    found.unrecorded += [f"upload of run {run_id} is in no flow run" for run_id in through_the_queue - shown]
    for receipt in standing.values():
        run = runs.get(idempotency_key(receipt.run_id, receipt.attempt))
        expected = "FAILED" if receipt.status is Status.REJECTED else "COMPLETED"
        if run and run["state_type"] != expected:
            found.wrong.append(f"flow run {run['name']} is {run['state_type']}, its receipt is {receipt.status}")


def _every_version_was_handed_in(ground: Ground, uploads: list[Uploaded], found: Audit) -> None:
    handed_in = {(uploaded.file.key, uploaded.message.version_id) for uploaded in uploads}
    for key, version_id in ground.versions(ground.landing):
        if (key, version_id) not in handed_in:
            found.lost.append(f"version {version_id} of {key} had no event")


def _receipts(ground: Ground, uploads: list[Uploaded], found: Audit) -> dict[str, Receipt]:
    """Check that every upload has one receipt, and that no attempt has written two. Return the receipts by run ID."""
    written: dict[str, list[str]] = defaultdict(list)
    for key, version_id in ground.versions(ground.published, "receipts/"):
        written[key].append(version_id)
    wanted = {receipt_key(uploaded.run_id): uploaded for uploaded in uploads}
    found.doubled += [f"{key} is about no upload" for key in written.keys() - wanted.keys()]
    found.lost += [f"upload {wanted[key].file.number} has no receipt" for key in wanted.keys() - written.keys()]
    for key, versions in written.items():
        if len(versions) > 1:
            attempts = Counter(ground.metadata(key, version_id)["attempt"] for version_id in versions)
            found.doubled += [f"{key}: attempt {each} has {n} receipts" for each, n in attempts.items() if n > 1]
    standing = {}
    for key in wanted.keys() & written.keys():
        receipt = Receipt.from_json(ground.read(key))
        standing[receipt.run_id] = receipt
        found.receipts += 1
        found.published += receipt.status is Status.PUBLISHED
        found.rejected += receipt.status is Status.REJECTED
    return standing


def _receipt_is_right(ground: Ground, uploaded: Uploaded, receipt: Receipt, attempt: int, found: Audit) -> None:
    file, rows = uploaded.file, receipt.rows
    says = (receipt.status is Status.REJECTED, rows.rows_in, rows.published, rows.quarantined_total, rows.dropped_total)
    ought = (file.rejected, file.rows_in, len(file.published), file.quarantined, file.dropped)
    if says != ought or not rows.balanced:
        found.wrong.append(f"upload {file.number}: its receipt has {says}, expected {ought}")
    if receipt.attempt < attempt:
        found.lost.append(f"upload {file.number}: the re-run that was asked for was not done")
    for output in receipt.outputs:
        if output.kind == "quarantine":
            table = _table(ground, output.key, output.sha256, found)
            if table is not None and table.num_rows != file.quarantined:
                found.wrong.append(f"{output.key} has {table.num_rows} rows, not {file.quarantined}")


def _current(
    ground: Ground, uploads: Iterable[Uploaded], standing: dict[str, Receipt], found: Audit
) -> dict[str, tuple[Uploaded, Receipt]]:
    """Return the data objects that readers must see, with their sources, by key. These are the objects of the newest
    published version of each key, or of all versions if the contract appends. Check that the index agrees."""
    newest: dict[str, tuple[Uploaded, Receipt] | None] = {}
    visible: dict[str, tuple[Uploaded, Receipt]] = {}
    for uploaded in sorted(uploads, key=lambda each: each.file.number):
        receipt = standing.get(uploaded.run_id)
        if receipt is None:
            continue
        entry_key = index_key(receipt.contract.dataset, ground.landing, uploaded.file.key)
        newest.setdefault(entry_key, None)
        if receipt.status is Status.PUBLISHED:
            newest[entry_key] = (uploaded, receipt)
            if receipt.contract.dataset == EVENTS:
                visible.update(_data_of(uploaded, receipt))
    for entry_key, published in newest.items():
        if _index_agrees(ground, entry_key, published, found) and published:
            visible.update(_data_of(*published))
    return visible


def _data_of(uploaded: Uploaded, receipt: Receipt) -> dict[str, tuple[Uploaded, Receipt]]:
    return {output.key: (uploaded, receipt) for output in receipt.outputs if output.kind == "data"}


def _index_agrees(ground: Ground, entry_key: str, newest: tuple[Uploaded, Receipt] | None, found: Audit) -> bool:
    """Check that the current run in an index entry is the newest published one. Return False if readers see nothing,
    because a re-run has withdrawn a newer version or moved it to another dataset, and otherwise True."""
    try:
        entry = IndexEntry.model_validate_json(ground.read(entry_key))
    except ground.missing:
        found.wrong.append(f"there is no {entry_key}")
        return True
    says = (entry.current.run_id, entry.current.attempt) if entry.current else None
    ought = (newest[1].run_id, newest[1].attempt) if newest else None
    if entry.retired:
        found.wrong.append(f"{entry_key} still lists {len(entry.retired)} objects to delete")
    if says is None and newest and entry.withdrawn and entry.withdrawn.age(IndexedRun.of(newest[1])) > 0:
        return False
    if says != ought:
        found.wrong.append(f"{entry_key}: current is {says}, expected {ought}")
    return True


def _rows_are_where_they_belong(ground: Ground, current: dict[str, tuple[Uploaded, Receipt]], found: Audit) -> None:
    """Check that every row that must be published is in exactly one object under data/, and that there is nothing
    else."""
    there = set(ground.keys("data/"))
    for key in sorted(there - current.keys()):
        found.doubled.append(f"{key} exists, but is no current output")
    seen: Counter[str] = Counter()
    for key in sorted(there):
        table = _table(ground, key, _digest(key, current), found)
        if table is not None:
            seen.update(table.column("id").to_pylist())
    wanted = {row for uploaded, _ in current.values() for row in uploaded.file.published}
    found.lost += [f"row {row} is in no published object" for row in sorted(wanted - seen.keys())]
    found.doubled += [f"row {row} is published, and must not be" for row in sorted(seen.keys() - wanted)]
    twice = {row: n for row, n in seen.items() if n > 1}
    found.doubled += [f"row {row} is published {n} times" for row, n in sorted(twice.items())]
    found.duplicates_published = len(twice)


def _digest(key: str, current: dict[str, tuple[Uploaded, Receipt]]) -> str:
    if key not in current:
        return ""
    return next(output.sha256 for output in current[key][1].outputs if output.key == key)


def _table(ground: Ground, key: str, sha256: str, found: Audit) -> pq.Table | None:
    try:
        body = ground.read(key)
    except ground.missing:
        found.lost.append(f"{key}: a receipt references it, but it does not exist")
        return None
    if sha256 and hashlib.sha256(body).hexdigest() != sha256:
        found.wrong.append(f"{key} has other bytes than in its receipt")
    return pq.read_table(io.BytesIO(body))
