"""Stores the peak memory that `make bench-memory RECORD=1` measures, from which docs/performance.md is generated."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

_BAR_MB = 20
_RECORDED = Path(__file__).parent / "recorded" / "memory.json"


@dataclass(frozen=True, order=True)
class Peak:
    """What a task cost that processed some files.

    Attributes:
        megabytes: the size of each file; for Parquet, that of the CSV file with the same rows.
        is_unique: whether a rule on unique values made all rows wait.
        in_ranges: whether the files were read from S3 in ranges, not copied to the disk.
        peak_mb: the peak resident memory of the task's process.
        with_readers_mb: the peak memory of the process and the processes that read files, measured at intervals.
        disk_mb: the peak disk space of its files, measured at intervals.
    """

    format: str
    files: int
    is_unique: bool
    megabytes: int
    in_ranges: bool
    cpu_seconds: int
    wall_seconds: int
    peak_mb: int
    with_readers_mb: int
    disk_mb: int

    @property
    def bar(self) -> str:
        """A bar whose length shows the peak memory."""
        return "█" * round(self.peak_mb / _BAR_MB)

    @property
    def case(self) -> tuple[str, int, bool, int, bool]:
        return self.format, self.files, self.is_unique, self.megabytes, self.in_ranges


def recorded_peaks() -> list[Peak]:
    """Return the stored measurements in the order of the table."""
    return sorted(Peak(**fields) for fields in json.loads(_RECORDED.read_text(encoding="utf-8")))


def record_peaks(measured: Iterable[Peak]) -> None:
    """Store measurements. Each replaces the earlier one of the same case."""
    peaks = {peak.case: peak for peak in [*recorded_peaks(), *measured]}
    text = json.dumps([asdict(peak) for peak in sorted(peaks.values())], indent=1)
    _RECORDED.write_text(text + "\n", encoding="utf-8")
