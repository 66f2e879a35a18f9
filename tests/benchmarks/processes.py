"""CPU seconds and memory of processes, from /proc, and the image's settings of memory allocators."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
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
    """Return the memory in use, in MB, of a process and of its children, as if they were alone on the machine.

    What they share counts once. Of the pages of files, those of the process with the most count: the others use the
    same libraries.
    """
    found = list(_memory(pid))
    return (sum(own for own, _ in found) + max((of_files for _, of_files in found), default=0)) * 1024 / 1e6


def _memory(pid: int) -> Iterator[tuple[int, int]]:
    """Yield for a process and its children the KiB that no file has, and those of files."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        running = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    except OSError:  # it has just ended
        return
    sizes = {line.split()[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
    yield sizes["Pss_Anon:"], sizes["Rss:"] - sizes["Anonymous:"]
    for child in running:
        yield from _memory(int(child))
