"""A preprocessing step that needs more memory than the task has."""

from __future__ import annotations

import pandas as pd

_PIECE_BYTES = 64 * 2**20
_ENOUGH_BYTES = 3 * 2**30  # so that a machine without a memory limit does not suffer


def hoard(frame: pd.DataFrame) -> pd.DataFrame:
    """Allocate up to 3 GiB of memory, so that the kernel kills the process in a task with less memory."""
    pieces: list[bytes] = []
    while len(pieces) * _PIECE_BYTES < _ENOUGH_BYTES:
        pieces.append(b"x" * _PIECE_BYTES)
    return frame.assign(pieces=len(pieces))
