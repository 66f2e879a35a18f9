"""Find a dataset's files in the index, and the receipts of the runs that published their current rows."""

from dataclasses import dataclass, field
from functools import partial

from blocks.at_once import at_once
from blocks.object_store import ObjectStore
from flows.pipeline.commit import indexed_datasets, read_receipt
from flows.pipeline.protocol import INDEX, IndexEntry, IndexUnreadable, index_key
from flows.pipeline.receipt import Receipt, ReceiptUnreadable, Status, receipt_key
from flows.pipeline.run_ids import find_run
from flows.refinery.errors import TerminalError
from flows.refinery.suggestions import did_you_mean


class NothingProcessed(TerminalError):
    """No file of a dataset has been processed, or there is no dataset with this name."""


class RunNotCurrent(TerminalError):
    """A run has no rows to read: it has no receipt, belongs to another dataset, was rejected or replaced, or its rows
    have expired."""


@dataclass
class CurrentFile:
    """An uploaded file, and the runs that published its current rows."""

    index_key: str  # the object key of its index entry
    receipts: tuple[Receipt, ...] = ()  # the receipts of these runs, oldest first; several if re-uploads are appended
    unreadable: dict[str, str] = field(default_factory=dict)  # by S3 URI, why an object could not be read


def current_files(store: ObjectStore, dataset: str) -> list[CurrentFile]:
    """Return all files of a dataset with their current runs, sorted by source key. Raise NothingProcessed if the index
    has no file of this dataset."""
    keys = [key for key, _ in store.list_keys(f"{INDEX}{dataset}/")]
    if not keys:
        raise _nothing_processed(store, dataset)
    found = at_once(partial(current_file, store, dataset), keys)
    return sorted(found, key=lambda file: (file.receipts[0].source.key if file.receipts else "", file.index_key))


def current_file(store: ObjectStore, dataset: str, key: str) -> CurrentFile:
    """Return the file whose index entry has the object key `key`, without runs if the entry cannot be read."""
    file = CurrentFile(key)
    stored = store.get(key)
    if stored is None:
        return file
    try:
        entry = IndexEntry.from_json(stored.body)
    except IndexUnreadable as error:
        file.unreadable[store.published_address(key)] = str(error)
        return file
    runs = {entry.current.run_id} if entry.current else set()
    receipts = (_receipt(store, run_id, file.unreadable) for run_id in sorted(runs | set(entry.appended)))
    # The receipt decides: a run that was repeated later may now be rejected, or belong to another dataset.
    visible = [each for each in receipts if each and _is_visible(each, dataset)]
    file.receipts = tuple(sorted(visible, key=lambda each: (each.source.last_modified or "", each.created_at)))
    return file


def file_of_run(store: ObjectStore, dataset: str, run: str) -> CurrentFile:
    """Return the file that a run processed, with only this run.

    Args:
        run: the run ID, or its first 8 or more characters.

    Raises:
        RunUnknown: there is no such run, or several run IDs begin with these characters.
        RunNotCurrent: its rows cannot be read; the message gives the reason.
        ReceiptUnreadable: this release cannot read its receipt.
    """
    run_id = find_run(store, run)
    receipt = read_receipt(store, run_id)
    if receipt is None:
        raise RunNotCurrent(f"there is no receipt of run {run_id}; `sluice status` lists the runs")
    if receipt.contract.dataset != dataset:
        raise RunNotCurrent(f"run {run_id} belongs to the dataset {receipt.contract.dataset!r}, not to {dataset!r}")
    if receipt.status is not Status.PUBLISHED:
        raise RunNotCurrent(f"run {run_id} was rejected: {receipt.reason}")
    file = current_file(store, dataset, index_key(dataset, receipt.source.bucket, receipt.source.key))
    same = tuple(each for each in file.receipts if each.run_id == run_id)
    if not same:
        newer = f" by run {file.receipts[-1].run_id}" if file.receipts else ""
        raise RunNotCurrent(f"the output of run {run_id} was replaced{newer}; its rows no longer exist")
    return CurrentFile(file.index_key, same)


def _receipt(store: ObjectStore, run_id: str, unreadable: dict[str, str]) -> Receipt | None:
    """Return a run's receipt. If it cannot be read, add the reason to `unreadable` and return None."""
    try:
        receipt, why = read_receipt(store, run_id), "the index names it, but it does not exist"
    except ReceiptUnreadable as error:
        receipt, why = None, str(error)
    if receipt is None:
        unreadable[store.published_address(receipt_key(run_id))] = why
    return receipt


def _is_visible(receipt: Receipt, dataset: str) -> bool:
    return receipt.status is Status.PUBLISHED and receipt.contract.dataset == dataset


def _nothing_processed(store: ObjectStore, dataset: str) -> NothingProcessed:
    known = indexed_datasets(store)
    there_are = f"datasets with files: {', '.join(known)}" if known else "no dataset has a file yet"
    return NothingProcessed(
        f"no file of the dataset {dataset!r} has been processed{did_you_mean(dataset, known)} ({there_are})"
    )
