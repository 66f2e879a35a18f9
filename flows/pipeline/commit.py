"""Carries out the commit protocol: writes the receipt, updates the index, and deletes replaced outputs.

protocol.py makes the decisions; this module reads and writes S3. Everything here can be repeated after a crash, with
the same result.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime

from blocks.at_once import at_once
from blocks.aws_errors import AwsUnavailable
from blocks.contention import attempts
from blocks.object_store import ObjectStore, StoredObject
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.protocol import (
    INDEX,
    IndexEntry,
    ReceiptConflict,
    decide_after_refused_commit,
    entry_without,
    index_key,
    orphaned_keys,
    run_of,
    runs_of_unknown_order,
    superseded_keys,
    updated_entry,
)
from flows.pipeline.receipt import Receipt, ReceiptUnreadable, area_of, receipt_key
from flows.refinery.contract.model import Contract
from lambda_trigger.message import run_id_of

_DATA = "data/"


# --- receipts ---------------------------------------------------------------------------------------------------------


def read_receipt(store: ObjectStore, run_id: str) -> Receipt | None:
    """Return a run's receipt, or None if there is none. Raise ReceiptUnreadable if this release cannot read it."""
    found = store.get(receipt_key(run_id))
    return Receipt.from_json(found.body) if found else None


def has_receipt(store: ObjectStore, run_id: str) -> bool:
    """Return whether a run has a receipt, even one that this release cannot read."""
    return store.exists(receipt_key(run_id))


def commit(store: ObjectStore, receipt: Receipt) -> Receipt:
    """Write a receipt, and return the valid receipt of its run: this one, or the one that another worker committed for
    the same or a later attempt.

    The receipt of a first attempt is written only if the run has no receipt. A forced re-run replaces the receipt of an
    earlier attempt. If the response to a write is lost but the receipt turns out to be stored, the commit succeeded.

    Raises:
        ReceiptConflict: a different result for the same attempt was committed first.
        AwsUnavailable: it is not clear which receipt is stored; try again.
    """
    key = receipt_key(receipt.run_id)
    for _ in attempts():
        found = store.get(key) if receipt.attempt > 0 else None
        before = Receipt.from_json(found.body) if found else None
        if before and before.attempt >= receipt.attempt:
            return decide_after_refused_commit(receipt, before)
        if store.put_if_unchanged(key, receipt.to_json(), found, metadata=receipt.metadata()):
            return receipt
        committed = read_receipt(store, receipt.run_id)
        if committed is None:
            raise AwsUnavailable(f"S3 rejected receipt {receipt.run_id}, but there is no other receipt; trying again")
        if committed.attempt >= receipt.attempt:
            return decide_after_refused_commit(receipt, committed)
        # An earlier attempt was committed in the meantime; this one replaces it too.
    raise AwsUnavailable(f"receipt {receipt.run_id} kept changing; trying again")


def commit_and_settle(parts: Parts, job: UploadJob, contract: Contract, receipt: Receipt) -> Receipt:
    """Commit a receipt, update the index, and delete replaced outputs. Return the valid receipt of the run.

    Raises:
        ReceiptConflict: a different result for the same attempt was committed first, or this is a repair and a later
            attempt was committed without its corrections.
    """
    try:
        committed = commit(parts.store, receipt)
        if job.corrections and committed.attempt > receipt.attempt:
            raise without_corrections(receipt.run_id)
    except ReceiptConflict:
        # The other worker may have died before it updated the index, and no one will do so once our message is deleted.
        other = read_receipt(parts.store, receipt.run_id)
        if other:
            settle(parts, job, contract, other, written=receipt)
        raise
    settle(parts, job, contract, committed, written=receipt)
    return committed


def without_corrections(run_id: str) -> ReceiptConflict:
    """Return the error for a repair that is too late because another attempt was committed first."""
    return ReceiptConflict(
        f"run {run_id} was processed again in the meantime, without these corrections; that result is kept. "
        "Check its quarantine, and repair that instead"
    )


# --- what follows from a receipt --------------------------------------------------------------------------------------


def settle(
    parts: Parts, job: UploadJob, contract: Contract | None, receipt: Receipt, *, written: Receipt | None = None
) -> None:
    """Update the index for a committed receipt, and delete the outputs of its run that the receipt does not reference.

    This is also necessary for a receipt that already existed, because its worker may have died before it updated the
    index, and another worker may have died after it wrote outputs but before it committed them.

    Args:
        contract: the contract that this job's file is checked against; None to use that of the receipt's dataset or, if
            there is none, the one that matches the key.
        written: the receipt that this job has committed or tried to commit; None if this job wrote nothing.
    """
    by_key = parts.contracts.for_key(job.upload.key)
    contract = contract or _named(parts, receipt.contract.dataset) or by_key
    # The committed receipt may belong to a different dataset than this job.
    by_dataset = {each.dataset: each for each in (*parts.contracts, contract)}
    replacing = {name for name, each in by_dataset.items() if each.on_reupload == "replace"}
    update_index(parts.store, receipt, replacing=replacing, datasets=[each.dataset for each in parts.contracts])
    # A manual run may use a contract other than the one that matches the key or that of the previous attempt.
    contracts = [contract, by_key, *(parts.contracts if receipt.attempt > 0 else ())]
    prefix = parts.settings.incoming_prefix
    folders = {f"{_DATA}{area_of(each, job.upload, prefix)}/" for each in contracts}
    outputs = [output for source in (receipt, written) if source for output in source.outputs if output.is_retirable]
    folders.update(output.key.rpartition("/")[0] + "/" for output in outputs)
    if _others_may_have_written(job, receipt, written):
        _delete_orphaned(parts.store, receipt, folders)


def _others_may_have_written(job: UploadJob, receipt: Receipt, written: Receipt | None) -> bool:
    """Return whether another worker may have left outputs of this run. That is impossible on the first delivery of the
    upload's first attempt if this worker's own result was committed. Knowing this saves a list request, which costs as
    much as a write."""
    is_first = job.chain.receive_count == 1 and job.upload.attempt == 0
    return not is_first or written is None or receipt.outcome_digest != written.outcome_digest


def _named(parts: Parts, dataset: str) -> Contract | None:
    """Return the contract of a dataset, or None if there is none, for example because it was removed."""
    return next((contract for contract in parts.contracts if contract.dataset == dataset), None)


def update_index(
    store: ObjectStore, receipt: Receipt, *, replacing: Collection[str], datasets: Iterable[str] = ()
) -> IndexEntry:
    """Update the index entry of a receipt's source key, delete the outputs that the update retires, and return the
    entry.

    Args:
        replacing: the datasets in which a re-upload replaces earlier outputs.
        datasets: the datasets in which an earlier attempt, under another contract, may have published outputs
            that a forced re-run has to withdraw.
    """
    for _ in attempts():
        key = _index_key_of(receipt, receipt.contract.dataset)
        found = store.get(key)
        # Read the receipt after the entry. A forced re-run that commits later either changes the entry after this
        # worker, or makes this worker's write fail. So a replaced receipt never gets into the index.
        current = read_receipt(store, receipt.run_id) or receipt
        if current.contract.dataset != receipt.contract.dataset:
            receipt = current
            continue
        before = IndexEntry.from_json(found.body) if found else None
        entry = updated_entry(
            before,
            current,
            replace=current.contract.dataset in replacing,
            newest_first=newest_first(store, runs_of_unknown_order(before, current), current),
        )
        if entry != before and not _put_entry(store, key, entry, found):
            continue  # another worker changed the entry in the meantime
        entry = _delete_retired(store, key, entry)
        # A re-run under another dataset's contract reads this entry only once, perhaps before this worker wrote it.
        receipt = read_receipt(store, receipt.run_id) or receipt
        if receipt.contract.dataset != current.contract.dataset:
            continue
        _withdraw(store, receipt, set(datasets) - {receipt.contract.dataset})
        return entry
    raise AwsUnavailable(f"index entry {receipt.source.key} kept changing; trying again")


def _withdraw(store: ObjectStore, receipt: Receipt, datasets: Iterable[str]) -> None:
    """Withdraw the outputs that earlier attempts published in `datasets`."""
    for dataset in sorted(datasets) if receipt.attempt > 0 else ():
        key = _index_key_of(receipt, dataset)
        for _ in attempts():
            found = store.get(key)
            if found is None:
                break
            before = IndexEntry.from_json(found.body)
            entry = entry_without(before, receipt)
            if entry == before or _put_entry(store, key, entry, found):
                _delete_retired(store, key, entry)
                break
        else:
            raise AwsUnavailable(f"index entry {receipt.source.key} in {dataset} kept changing; trying again")


def _delete_retired(store: ObjectStore, key: str, entry: IndexEntry) -> IndexEntry:
    """Delete the retired outputs, then remove them from the entry, and return the entry. If the process crashes between
    these steps, the next update repeats the deletion."""
    if not entry.retired:
        return entry
    for retired in entry.retired:
        store.delete(retired)
    found = store.get(key)
    if found is None:
        return entry
    stored = IndexEntry.from_json(found.body)
    cleared = stored.model_copy(update={"retired": tuple(sorted(set(stored.retired) - set(entry.retired)))})
    # If another worker was faster, the keys stay listed and are deleted again, which does no harm.
    _put_entry(store, key, cleared, found)
    return cleared


def _delete_orphaned(store: ObjectStore, receipt: Receipt, folders: Iterable[str]) -> None:
    """Delete the outputs in `folders` that belong to the run of `receipt` but are not referenced by the receipt, except
    those of later attempts, which may be about to be committed."""
    for folder in sorted(folders):
        for key in orphaned_keys((key for key, _ in store.list_keys(folder + receipt.run_id)), receipt):
            store.delete(key)


# --- the index --------------------------------------------------------------------------------------------------------


def index_entry(store: ObjectStore, receipt: Receipt) -> IndexEntry | None:
    """Return the index entry for a receipt's dataset and source key, or None if there is none yet."""
    found = store.get(_index_key_of(receipt, receipt.contract.dataset))
    return IndexEntry.from_json(found.body) if found else None


def indexed_datasets(store: ObjectStore) -> list[str]:
    """Return the sorted names of the datasets that have index entries."""
    return sorted(folder.removeprefix(INDEX).strip("/") for folder in store.list_folders(INDEX))


def latest_receipt(store: ObjectStore, dataset: str, bucket: str, key: str) -> Receipt | None:
    """Return the receipt of the newest processed version of a source key in a dataset, or None if there is none."""
    found = store.get(index_key(dataset, bucket, key))
    return read_receipt(store, IndexEntry.from_json(found.body).latest.run_id) if found else None


def newest_first(store: ObjectStore, run_ids: frozenset[str], receipt: Receipt) -> tuple[str, ...]:
    """Return those of the given runs whose object versions S3 still lists, newest version first."""
    bucket, key = receipt.source.bucket, receipt.source.key
    found: list[str] = []
    for page in store.versions(bucket, key) if run_ids else ():
        for version in page:
            run_id = run_id_of(bucket, key, version.version_id, version.etag, None)
            if version.key == key and run_id in run_ids:
                found.append(run_id)
        if len(found) == len(run_ids) or (page and page[-1].key != key):
            break
    return tuple(found)


def _index_key_of(receipt: Receipt, dataset: str) -> str:
    return index_key(dataset, receipt.source.bucket, receipt.source.key)


def _put_entry(store: ObjectStore, key: str, entry: IndexEntry, seen: StoredObject | None) -> bool:
    return store.put_if_unchanged(key, entry.to_json(), seen)


# --- orphaned outputs -------------------------------------------------------------------------------------------------


def find_orphaned(parts: Parts, within: Callable[[datetime], bool]) -> Iterator[str]:
    """Yield the keys of orphaned outputs: objects under data/ that no receipt references, or only the receipt
    of a replaced version.

    Usually the worker that receives a message again deletes the outputs that an earlier delivery left. But if two
    workers hold the same message, one may finish the upload and delete the message before the other one, which has
    already written its output, is killed. Also, the first delivery of a redriven message is not treated as a repeated
    delivery. The reconcile flow therefore looks for such objects.

    Runs without a receipt are skipped, because their workers may be about to commit.

    Args:
        within: returns whether to check an object, given the time when it was written.
    """
    for page in parts.store.list_objects(_DATA):
        by_run: dict[str, list[str]] = defaultdict(list)
        for each in page:
            run_id = run_of(each.key)
            if run_id and within(each.last_modified):
                by_run[run_id].append(each.key)
        # Each run takes two or three small reads, and a day may have ten thousand runs.
        for found in at_once(lambda one: _orphaned_of_run(parts, *one), by_run.items()):
            yield from found


def _orphaned_of_run(parts: Parts, run_id: str, keys: Iterable[str]) -> tuple[str, ...]:
    try:
        receipt = read_receipt(parts.store, run_id)
    except ReceiptUnreadable:
        return ()  # written by a later release, which can read what it references
    if receipt is None:
        return ()
    contract = _named(parts, receipt.contract.dataset)
    entry = index_entry(parts.store, receipt) if contract and contract.on_reupload == "replace" else None
    order = newest_first(parts.store, runs_of_unknown_order(entry, receipt), receipt)
    return superseded_keys(keys, receipt, entry, newest_first=order)
