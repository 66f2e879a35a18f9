"""Functions that read the CPU seconds and the memory of processes from /proc, and the image's settings for memory
allocators from its Dockerfile."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from deployment import PROJECT_ROOT

_TICKS = os.sysconf("SC_CLK_TCK")
_ALLOCATORS = re.compile(r"\b((?:ARROW|MALLOC|MIMALLOC)_\w+)=(\w+)")


def image_allocators() -> dict[str, str]:
    """Return the environment variables that configure memory allocators in the image."""
    return dict(_ALLOCATORS.findall((PROJECT_ROOT / "container" / "Dockerfile").read_text()))


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU seconds of a process and of its descendants, including those that have ended."""
    return sum(own_and_childrens(pid))


def own_and_childrens(pid: int | None) -> tuple[float, float]:
    """Return the CPU seconds of a process itself, and separately those of its descendants, including those that have
    ended."""
    if pid is None:
        return 0.0, 0.0
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        running = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    except OSError:  # the process has just ended, so its parent includes it from now on
        return 0.0, 0.0
    own, ended = sum(map(int, values[11:13])), sum(map(int, values[13:15]))
    return own / _TICKS, ended / _TICKS + sum(cpu_seconds(int(child)) for child in running)


def memory_mb(pid: int) -> float:
    """Return how much memory in MB a process and its descendants use, as if they were alone on the machine.

    Memory that they share counts once. Of the memory that is mapped from files, only that of the process with the most
    of it counts, because the other processes use the same libraries.
    """
    found = list(_memory(pid))
    return (sum(own for own, _ in found) + max((of_files for _, of_files in found), default=0)) * 1024 / 1e6


def _memory(pid: int) -> Iterator[tuple[int, int]]:
    """Yield two numbers in KiB for a process and for each of its descendants: the memory that is not mapped from files,
    and the memory that is."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        running = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    except OSError:  # the process has just ended
        return
    sizes = {line.split()[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
    yield sizes["Pss_Anon:"], sizes["Rss:"] - sizes["Anonymous:"]
    for child in running:
        yield from _memory(int(child))
