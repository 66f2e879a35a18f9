"""Find duplicates in a file of any size: 64-bit hashes find the suspects, and their values confirm them.

So a hash collision between different values never quarantines a good row.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
import pandas as pd

from flows.refinery.validate.sorted_numbers import is_among

_CONFIRMED_AT_ONCE = 2_000_000  # suspects whose values are in memory together
_SORTED_AT_ONCE = 8_000_000  # hashes
_FIRST_CAPACITY = 1 << 16

Rows = tuple[pd.DataFrame, np.ndarray]
"""Keys and their row numbers."""
Take = Callable[[np.ndarray], Rows]
"""A function that returns the keys at some positions of a partition, without those that are not compared."""


class HashCollector:
    """The hashes of all rows of a file, in one array that grows in place."""

    def __init__(self) -> None:
        self._hashes = np.empty(_FIRST_CAPACITY, dtype=np.uint64)
        self._sizes: list[int] = []  # of the partitions
        self._used = 0

    def add(self, hashes: np.ndarray) -> None:
        """Add the hashes of one partition, one per row."""
        wanted = self._used + len(hashes)
        if wanted > len(self._hashes):
            self._hashes.resize(max(wanted, len(self._hashes) * 3 // 2), refcheck=False)
        self._hashes[self._used : wanted] = hashes
        self._used = wanted
        self._sizes.append(len(hashes))

    def repeated(self) -> tuple[np.ndarray, int]:
        """Return the sorted hashes that occur more than once, and the number of rows that have one of them."""
        hashes = self._hashes[: self._used]
        parts = np.uint64(self._used // _SORTED_AT_ONCE + 1)
        found, rows = [], 0
        for part in range(int(parts)):
            some = np.sort(hashes if parts == 1 else hashes[hashes % parts == part])
            repeated = np.unique(some[1:][some[1:] == some[:-1]])
            first = np.searchsorted(some, repeated, side="left")
            rows += int((np.searchsorted(some, repeated, side="right") - first).sum())
            found.append(repeated)
        return np.sort(np.concatenate(found)), rows

    def partitions(self) -> Iterator[np.ndarray]:
        """Yield the hashes of each partition."""
        ends = np.cumsum(self._sizes).tolist()
        for size, end in zip(self._sizes, ends, strict=True):
            yield self._hashes[end - size : end]


def duplicated_rows(
    collector: HashCollector, read_again: Callable[[], Iterable[Take]], keep: Literal["first", "last", False] = False
) -> np.ndarray:
    """Return the sorted row numbers of duplicates: all occurrences, or all except the first or the last.

    Args:
        collector: has the hashes of all rows.
        read_again: returns the same partitions again, in the same order; called only if hashes repeat.
    """
    repeated, suspects = collector.repeated()
    if not suspects:
        return np.empty(0, dtype=np.int64)
    rounds = -(-suspects // _CONFIRMED_AT_ONCE)
    found = [_confirmed(collector, repeated, read_again(), keep, (turn, rounds)) for turn in range(rounds)]
    return np.sort(np.concatenate(found))


def _confirmed(
    collector: HashCollector,
    repeated: np.ndarray,
    partitions: Iterable[Take],
    keep: Literal["first", "last", False],
    turn: tuple[int, int],
) -> np.ndarray:
    """Return the duplicates among the suspects of one turn, (number, of how many). Hashes determine the turn, so equal
    keys are in the same one."""
    number, rounds = turn
    suspects, rows = [], []
    for hashes, take in zip(collector.partitions(), partitions, strict=True):
        is_suspect = is_among(hashes, repeated)
        if rounds > 1:
            is_suspect &= hashes % np.uint64(rounds) == np.uint64(number)
        keys, row_numbers = take(np.flatnonzero(is_suspect))
        suspects.append(keys)
        rows.append(row_numbers)
    duplicated = pd.concat(suspects, ignore_index=True).duplicated(keep=keep).to_numpy()
    found: np.ndarray = np.concatenate(rows)[duplicated]
    return found
