"""Find which numbers of an array are in a sorted array."""

import numpy as np

_MANY = 10_000
_BITS = 20


def is_among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return a mask that is true for each hash in `values` that is also in `others`. `others` must be sorted and not
    empty."""
    if len(values) < _MANY:
        return _is_among(values, others)
    # Twenty bits are enough to rule out most hashes, and checking them is several times faster than a search. The first
    # bits are used, because they vary most: a hash is a product.
    shift = np.uint64(64 - _BITS)
    seen = np.zeros(1 << _BITS, dtype=bool)
    seen[others >> shift] = True
    among: np.ndarray = seen[values >> shift]
    places = np.flatnonzero(among)
    among[places] = _is_among(values[places], others)
    return among


def _is_among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(others, values), len(others) - 1)
    same: np.ndarray = others[place] == values
    return same


def positions_of(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the positions in `values` of the numbers that occur there. Both arrays must be sorted and have no
    duplicates."""
    if not len(values):
        return np.empty(0, dtype=np.int64)
    inside = numbers[np.searchsorted(numbers, values[0]) : np.searchsorted(numbers, values[-1], side="right")]
    places = np.searchsorted(values, inside)
    found: np.ndarray = places[values[places] == inside]
    return found
