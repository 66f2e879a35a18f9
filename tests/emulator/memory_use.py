"""Measures how much memory a process and its descendants use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_SECONDS = 0.2


def exceeds(pid: int, limit_bytes: int, ended: Callable[[], bool]) -> bool:
    """Wait until the process and its descendants use more than `limit_bytes` or until `ended()` is true. Return whether
    they exceeded the limit."""
    while not ended():
        if resident_bytes(pid) > limit_bytes:
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants, or 0 if there is no such process or no /proc."""
    process = Path("/proc") / str(pid)
    try:
        pages = int((process / "statm").read_text().split()[1])
        children = [
            int(child) for task in (process / "task").iterdir() for child in (task / "children").read_text().split()
        ]
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident_bytes, children))
