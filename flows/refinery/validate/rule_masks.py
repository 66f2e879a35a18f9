"""One bit per rule and row: uint64 arrays of rows x words; bit k of a row says that the row breaks the k-th rule."""

from __future__ import annotations

from typing import Any

import numpy as np

BITS_PER_WORD = 64


def no_bits(rows: int, rules: int) -> np.ndarray:
    """Bits for so many rows and rules, none of them set. There is at least one word."""
    return np.zeros((rows, max(1, -(-rules // BITS_PER_WORD))), dtype=np.uint64)


def set_bit(bits: np.ndarray, rows: Any, rule: int) -> None:
    """Mark `rows` (positions or mask) as breaking the rule, in place."""
    bits[rows, rule // BITS_PER_WORD] |= np.uint64(1 << (rule % BITS_PER_WORD))


def has_bit(bits: np.ndarray, rule: int) -> np.ndarray:
    """Which rows break the rule."""
    found: np.ndarray = (bits[:, rule // BITS_PER_WORD] >> np.uint64(rule % BITS_PER_WORD)) & np.uint64(1) != 0
    return found
