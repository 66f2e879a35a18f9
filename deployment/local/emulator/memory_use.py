"""Watches how much memory a process and its children take."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

_LOOK_SECONDS = 0.2


def exceeds(pid: int, limit_bytes: int, ended: Event) -> bool:
    """Wait until the processes take more than `limit_bytes`, or have ended; return whether it was the former."""
    while not ended.wait(_LOOK_SECONDS):
        if resident_bytes(pid) > limit_bytes:
            return True
    return False


def resident_bytes(pid: int) -> int:
    """The resident memory of a process and of all that it started; 0 where there is no /proc, or no such process."""
    process = Path("/proc") / str(pid)
    try:
        pages = int((process / "statm").read_text().split()[1])
        children = [
            int(child) for task in (process / "task").iterdir() for child in (task / "children").read_text().split()
        ]
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident_bytes, children))
