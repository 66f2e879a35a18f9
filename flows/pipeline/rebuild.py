"""Rebuilds, from receipts, index entries that are missing, outdated or unreadable, and flow runs in Prefect."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from blocks.at_once import at_once
from blocks.object_store import ListedObject, ObjectStore
from flows.pipeline.commit import newest_first, read_receipt
from flows.pipeline.job import Parts
from flows.pipeline.protocol import IndexEntry, IndexUnreadable, index_key, updated_entry
from flows.pipeline.receipt import RECEIPTS, Receipt, ReceiptUnreadable, Status

_PAGE = 500


@dataclass
class Rebuilt:
    """The result of one call of `rebuild`."""

    receipts: int = 0  # number of receipts that were read
    entries: int = 0  # number of index entries that were written or, in a dry run, would be
    recorded: int = 0  # number of receipts whose run Prefect shows now
    unreadable: list[str] = field(default_factory=list)  # keys of receipts that could not be read
    unknown: set[str] = field(default_factory=set)  # datasets that have no contract; their entries were not changed


def rebuild(
    parts: Parts, since: datetime, record: Callable[[Sequence[Receipt]], frozenset[str]], *, dry_run: bool
) -> Rebuilt:
    """Bring the index up to date with all receipts, and show the recent ones in Prefect. Return what was done.

    Args:
        since: receipts that were written at this time or later are shown in Prefect.
        record: shows receipts in Prefect; returns the run IDs of those that Prefect now shows.
        dry_run: whether to write nothing, and only count the index entries that would be written.
    """
    done, by_key = Rebuilt(), defaultdict[str, list[str]](list)
    for page in parts.store.list_objects(RECEIPTS, page_size=_PAGE):
        receipts = list(_readable(parts.store, page, done))
        done.receipts += len(receipts)
        for receipt, _ in receipts:
            source = receipt.source
            by_key[index_key(receipt.contract.dataset, source.bucket, source.key)].append(receipt.run_id)
        recent = [receipt for receipt, written in receipts if written >= since]
        done.recorded += len(record(recent)) if recent and not dry_run else 0
    replacing = {contract.dataset: contract.on_reupload == "replace" for contract in parts.contracts}

    def write(one: tuple[str, list[str]]) -> bool:
        dataset = one[0].split("/")[1]
        if dataset not in replacing:
            done.unknown.add(dataset)
            return False
        return _write(parts.store, *one, replace=replacing[dataset], dry_run=dry_run)

    done.entries = sum(at_once(write, by_key.items()))
    return done


def _readable(store: ObjectStore, page: Iterable[ListedObject], done: Rebuilt) -> Iterator[tuple[Receipt, datetime]]:
    def read(listed: ListedObject) -> tuple[Receipt, datetime] | None:
        try:
            found = read_receipt(store, listed.key.removeprefix(RECEIPTS).removesuffix(".json"))
        except ReceiptUnreadable:
            done.unreadable.append(listed.key)
            return None
        return (found, listed.last_modified) if found else None

    return filter(None, at_once(read, page))


def _write(store: ObjectStore, key: str, run_ids: Sequence[str], *, replace: bool, dry_run: bool) -> bool:
    """Write the index entry of one source key, unless the stored entry is correct. Return whether it was written or, in
    a dry run, would be."""
    stored = store.get(key)
    before = None
    with suppress(IndexUnreadable):
        before = IndexEntry.from_json(stored.body) if stored else None
    receipts = [receipt for run_id in run_ids if (receipt := read_receipt(store, run_id))]
    entry = _entry_of(store, before, receipts, replace=replace)
    if entry is None or entry == before:
        return False
    # If another worker was faster, its entry has the newest receipt; the next rebuild adds what is missing there.
    return dry_run or store.put_if_unchanged(key, entry.to_json(), stored)


def _entry_of(
    store: ObjectStore, before: IndexEntry | None, receipts: Sequence[Receipt], *, replace: bool
) -> IndexEntry | None:
    """Return the index entry `before` after applying all receipts of its source key. It retires no further outputs,
    because the reconcile flow deletes orphaned outputs."""
    order: tuple[str, ...] = ()
    if len(receipts) > 1 and not all(receipt.source.sequencer for receipt in receipts):
        order = newest_first(store, frozenset(receipt.run_id for receipt in receipts), receipts[0])
    entry = before
    for receipt in receipts:
        entry = updated_entry(entry, receipt, replace=replace, newest_first=order)
    if entry is None:
        return None
    entry = entry.model_copy(update={"retired": before.retired if before else ()})
    current, latest = entry.current, entry.latest
    if current and latest.status is Status.REJECTED and latest.attempt and not _is_there(store, current.data_keys):
        # The rejected version was published before, and at that time the data of the version before it was deleted.
        return entry.model_copy(update={"current": None, "withdrawn": current})
    return entry


def _is_there(store: ObjectStore, keys: Sequence[str]) -> bool:
    """Return whether the first of these objects exists, or True if `keys` is empty. The object is listed rather than
    read, because the reconcile flow has no permission to read data."""
    return not keys or any(key == keys[0] for key, _ in store.list_keys(keys[0]))
