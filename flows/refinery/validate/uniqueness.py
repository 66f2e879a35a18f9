"""Duplicates over a file of any size: 64-bit hashes find the suspects, their values confirm them.

So a hash collision between different values never sends a good row to quarantine.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import pandas as pd

from flows.refinery.validate.aggregates import hashes_of
from flows.refinery.validate.sorted_numbers import is_among

_CONFIRMED_AT_ONCE = 2_000_000  # suspects whose values are held in memory together
_FIRST_CAPACITY = 1 << 16

Keys = Iterable[tuple[pd.DataFrame, np.ndarray]]


class HashCollector:
    """The hashes of all keys of a file, in one array that grows in place."""

    def __init__(self) -> None:
        self._hashes = np.empty(_FIRST_CAPACITY, dtype=np.uint64)
        self._used = 0

    def add(self, hashes: np.ndarray) -> None:
        """Add the hashes of one partition's keys, one per row."""
        wanted = self._used + len(hashes)
        if wanted > len(self._hashes):
            self._hashes.resize(max(wanted, len(self._hashes) * 3 // 2), refcheck=False)
        self._hashes[self._used : wanted] = hashes
        self._used = wanted

    def repeated(self) -> tuple[np.ndarray, int]:
        """Return the sorted hashes that occur more than once, and how many keys have one. Ends the collection."""
        hashes = self._hashes[: self._used]
        hashes.sort()
        same_as_next = hashes[1:] == hashes[:-1]
        repeated = np.unique(hashes[1:][same_as_next])
        first = np.searchsorted(hashes, repeated, side="left")
        last = np.searchsorted(hashes, repeated, side="right")
        return repeated, int((last - first).sum())


def duplicated_rows(
    collector: HashCollector, read_again: Callable[[], Keys], keep: Literal["first", "last", False] = False
) -> np.ndarray:
    """Return the row numbers of duplicates, sorted: of all occurrences, or of all but the first or the last.

    Args:
        collector: has seen all keys.
        read_again: gives the same keys again, in the same order, with their row numbers; called when hashes repeat.
    """
    repeated, suspects = collector.repeated()
    if not suspects:
        return np.empty(0, dtype=np.int64)
    rounds = -(-suspects // _CONFIRMED_AT_ONCE)
    found = [_confirmed(repeated, read_again(), keep, (turn, rounds)) for turn in range(rounds)]
    return np.sort(np.concatenate(found))


def _confirmed(
    repeated: np.ndarray, keys: Keys, keep: Literal["first", "last", False], turn: tuple[int, int]
) -> np.ndarray:
    """Return the duplicates among the suspects whose hash falls to this turn. Equal keys fall to the same turn."""
    number, rounds = turn
    suspects, rows = [], []
    for frame, row_numbers in keys:
        hashes = hashes_of(frame)
        is_suspect = is_among(hashes, repeated) & (hashes % np.uint64(rounds) == np.uint64(number))
        suspects.append(frame[is_suspect])
        rows.append(row_numbers[is_suspect])
    if not suspects:
        return np.empty(0, dtype=np.int64)
    duplicated = pd.concat(suspects, ignore_index=True).duplicated(keep=keep).to_numpy()
    found: np.ndarray = np.concatenate(rows)[duplicated]
    return found
