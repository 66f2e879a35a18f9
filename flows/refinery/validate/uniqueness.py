"""Find duplicate rows in a file of any size.

Rows with equal 64-bit hashes are suspects, and only a comparison of their values confirms that they are duplicates. So
a hash collision between different values never quarantines a good row.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from flows.refinery.validate.sorted_numbers import is_among

_CONFIRMED_AT_ONCE = 2_000_000  # suspects whose values are in memory together
_IN_MEMORY = 1_000_000  # hashes; beyond that all are on disk
_BUCKETS = 256
_FIRST_BYTE = np.uint64(56)

Rows = tuple[pd.DataFrame, np.ndarray]
"""The keys of some rows, and the numbers of these rows."""
Take = Callable[[np.ndarray], Rows]
"""A function that gets positions in a partition, and returns the keys of the rows there. It leaves out rows that are
not compared."""


class HashCollector:
    """Stores the hashes of all rows of a file, and finds those that repeat. If there are more than a million, all are
    written to local disk: once in the order of the rows, and once in buckets by their first byte.

    Args:
        folder: where hashes are stored on disk. It must not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[np.ndarray] = []  # one array for each partition
        self._held_rows = 0
        self._spilled: list[int] = []  # the sizes of the partitions that are on disk

    def add(self, hashes: np.ndarray) -> None:
        """Add the hashes of the next partition, one for each row."""
        self._held.append(hashes)
        self._held_rows += len(hashes)
        if self._held_rows > _IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        self._folder.mkdir(exist_ok=True)
        hashes = np.concatenate(self._held)
        self._spilled += map(len, self._held)
        self._held, self._held_rows = [], 0
        _append(self._folder / "all", hashes)
        hashes.sort()
        starts = np.searchsorted(hashes, np.arange(1, _BUCKETS, dtype=np.uint64) << _FIRST_BYTE)
        for bucket, some in enumerate(np.split(hashes, starts)):
            _append(self._folder / f"{bucket:03d}", some)

    def repeated(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield the hashes that occur more than once. Each result is a sorted array of some of them, and the number of
        rows that have one of these hashes."""
        if not self._spilled:
            yield _repeated(np.concatenate([np.empty(0, dtype=np.uint64), *self._held]))
            return
        if self._held:
            self._spill()
        some, rows = [np.empty(0, dtype=np.uint64)], 0
        for bucket in range(_BUCKETS):
            repeated, more = _repeated(np.fromfile(self._folder / f"{bucket:03d}", dtype=np.uint64))
            if rows and rows + more > _CONFIRMED_AT_ONCE:
                yield np.concatenate(some), rows
                some, rows = [], 0
            some.append(repeated)
            rows += more
        yield np.concatenate(some), rows

    def partitions(self) -> Iterator[np.ndarray]:
        """Yield the hashes of each partition, in the order in which they were added."""
        if self._spilled:
            with (self._folder / "all").open("rb") as file:
                for size in self._spilled:
                    yield np.fromfile(file, dtype=np.uint64, count=size)
        yield from self._held

    def close(self) -> None:
        """Delete the hashes in memory and on disk."""
        self._held.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def _append(path: Path, hashes: np.ndarray) -> None:
    with path.open("ab") as file:
        hashes.tofile(file)


def _repeated(hashes: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the sorted hashes that occur more than once, and the number of rows that have one of them."""
    hashes.sort()
    repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    first = np.searchsorted(hashes, repeated, side="left")
    return repeated, int((np.searchsorted(hashes, repeated, side="right") - first).sum())


def duplicated_rows(
    collector: HashCollector, read_again: Callable[[], Iterable[Take]], keep: Literal["first", "last", False] = False
) -> np.ndarray:
    """Return the sorted row numbers of duplicates.

    Args:
        collector: must have the hashes of all rows. It is closed afterwards.
        read_again: returns the same partitions in the same order. It is called only if hashes repeat.
        keep: which of several equal rows is not a duplicate; with False, all of them are.
    """
    found = [np.empty(0, dtype=np.int64)]
    for repeated, suspects in collector.repeated():
        rounds = -(-suspects // _CONFIRMED_AT_ONCE)
        found += [_confirmed(collector, repeated, read_again(), keep, (turn, rounds)) for turn in range(rounds)]
    collector.close()
    return np.sort(np.concatenate(found))


def _confirmed(
    collector: HashCollector,
    repeated: np.ndarray,
    partitions: Iterable[Take],
    keep: Literal["first", "last", False],
    turn: tuple[int, int],
) -> np.ndarray:
    """Return the row numbers of the duplicates among some of the suspects, so that not all suspects are in memory at
    the same time. `turn` is (number, total); the hash of a key determines its turn, so equal keys have the same
    turn."""
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
