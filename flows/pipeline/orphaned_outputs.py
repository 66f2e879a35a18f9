"""Leftovers: data that no reader of receipts sees, and that a reader of the plain prefix data/ would.

Workers clean up after each other, with one exception. A worker stands still, another one takes the upload over,
finishes it and deletes the message; then the first one goes on, writes its output, and is killed before it looks at
the receipt. No message is left that would bring somebody to clean up. So the reconcile flow looks for such objects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

from flows.composition import Pipeline
from flows.pipeline.protocol import run_of, unread, untold
from flows.pipeline.receipt import ReceiptUnreadable

_DATA = "data/"
_LOOKS_AT_ONCE = 8


def find_leftovers(parts: Pipeline, within: Callable[[datetime], bool]) -> Iterator[str]:
    """Yield the keys of data objects that were written `within` the time that counts, and that nobody can need.

    A run without a receipt is left alone: its worker may be about to commit.
    """
    for page in parts.store.outputs(_DATA):
        by_run: dict[str, list[str]] = defaultdict(list)
        for key, written in page:
            run_id = run_of(key)
            if run_id and within(written):
                by_run[run_id].append(key)
        # Two or three small reads for each run, of which a day may have ten thousand.
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            for found in pool.map(partial(_of_run, parts), by_run, by_run.values()):
                yield from found


def _of_run(parts: Pipeline, run_id: str, keys: Iterable[str]) -> tuple[str, ...]:
    try:
        receipt = parts.store.receipt(run_id)
    except ReceiptUnreadable:
        return ()  # of a later release, which knows what its receipts speak of
    if receipt is None:
        return ()
    dataset = receipt.contract.dataset
    replaces = any(each.dataset == dataset and each.on_reupload == "replace" for each in parts.contracts)
    entry = parts.store.index_entry(dataset, receipt.source.bucket, receipt.source.key) if replaces else None
    return unread(keys, receipt, entry, newest_first=parts.store.order_of(untold(entry, receipt), receipt))
