"""A step that needs more memory than the task has."""

from __future__ import annotations

import pandas as pd

_PIECE_BYTES = 64 * 2**20
_ENOUGH_BYTES = 3 * 2**30  # where no limit is kept the machine is not to suffer


def hoard(frame: pd.DataFrame) -> pd.DataFrame:
    """Allocate memory until the kernel kills the process."""
    pieces: list[bytes] = []
    while len(pieces) * _PIECE_BYTES < _ENOUGH_BYTES:
        pieces.append(b"x" * _PIECE_BYTES)
    return frame.assign(pieces=len(pieces))
