"""Search in sorted numbers."""

from __future__ import annotations

import numpy as np


def is_among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of some values are among others, of which there is at least one and which are sorted."""
    place = np.minimum(np.searchsorted(others, values), len(others) - 1)
    same: np.ndarray = others[place] == values
    return same
