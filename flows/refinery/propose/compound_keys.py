"""Find two or three columns that together form a key, unless that may be a coincidence."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

Codes = npt.NDArray[np.int64]
_MAX_COLUMNS = 16
_MAX_WIDTH = 3
_HEAD_ROWS = 20_000  # most combinations that are not unique have duplicates within these rows
_MAX_CHECKS = 30  # how many combinations of one width are checked on all rows
# A combination is checked only if independent columns would have at least this many pairs of equal rows. If fewer are
# expected, it may be a coincidence that there are none.
_MIN_EXPECTED_PAIRS = 20


def compound_key(columns: Mapping[str, npt.NDArray[np.uint64]]) -> tuple[str, ...]:
    """Return the names of two columns, or three if necessary, whose combined values are unique. Return an empty tuple
    if none are found, or if a single column is unique. Only the first 16 columns are considered.

    Args:
        columns: the hashes of each column's values in row order, by column name; no value may be missing.
    """
    coded = {name: _coded(hashes) for name, hashes in list(columns.items())[:_MAX_COLUMNS]}
    rows = max(map(len, columns.values()), default=0)
    if any(distinct == rows for _, distinct in coded.values()):
        return ()
    varied = {name: codes for name, codes in coded.items() if codes[1] > 1}
    for width in range(2, _MAX_WIDTH + 1):
        checks = 0
        for names in _candidates(varied, rows, width):
            if not _is_unique([varied[name] for name in names], _HEAD_ROWS):
                continue
            checks += 1
            if _is_unique([varied[name] for name in names], rows):
                return names
            if checks == _MAX_CHECKS:
                break
    return ()


def _coded(hashes: npt.NDArray[np.uint64]) -> tuple[Codes, int]:
    codes, values = pd.factorize(hashes)
    return codes.astype(np.int64), len(values)


def _candidates(columns: Mapping[str, tuple[Codes, int]], rows: int, width: int) -> Iterator[tuple[str, ...]]:
    """Yield combinations of columns that can be unique, starting with those least likely to be so by coincidence."""
    room = {names: math.prod(columns[name][1] for name in names) for names in combinations(columns, width)}
    most = rows * (rows - 1) / 2 / _MIN_EXPECTED_PAIRS
    yield from (names for names in sorted(room, key=room.__getitem__) if rows <= room[names] <= most)


def _is_unique(columns: Sequence[tuple[Codes, int]], rows: int) -> bool:
    combined = np.zeros(len(columns[0][0][:rows]), np.int64)
    for codes, distinct in columns:
        combined = combined * distinct + codes[:rows]
    return bool(pd.Series(combined).is_unique)
