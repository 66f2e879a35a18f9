"""CPU seconds and memory of processes, from /proc, and the image's settings of memory allocators."""

from __future__ import annotations

import os
import re
from pathlib import Path

from deployment import PROJECT_ROOT

_TICKS = os.sysconf("SC_CLK_TCK")
_ALLOCATORS = re.compile(r"\b((?:ARROW|MALLOC)_\w+)=(\w+)")


def image_allocators() -> dict[str, str]:
    """Return the environment variables with which the image's processes allocate memory."""
    return dict(_ALLOCATORS.findall((PROJECT_ROOT / "container" / "Dockerfile").read_text()))


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU seconds of a process and of its children, including those that have ended."""
    return sum(own_and_childrens(pid))


def own_and_childrens(pid: int | None) -> tuple[float, float]:
    """Return the CPU seconds of a process alone, and of its children, including those that have ended."""
    if pid is None:
        return 0.0, 0.0
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        running = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    except OSError:  # it has just ended: its parent counts it from now on
        return 0.0, 0.0
    own, ended = sum(map(int, values[11:13])), sum(map(int, values[13:15]))
    return own / _TICKS, ended / _TICKS + sum(cpu_seconds(int(child)) for child in running)


def memory_mb(pid: int) -> float:
    """Return the memory in use, in MB, of a process and of its children; what they share counts once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        running = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    except OSError:  # it has just ended
        return 0.0
    proportional = int((rollup.partition("Pss:")[2].split() or ["0"])[0])
    return proportional * 1024 / 1e6 + sum(memory_mb(int(child)) for child in running)
