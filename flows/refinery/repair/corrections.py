"""Corrections to a file: new values for some of its rows, and rows to drop. validate/overlay.py applies them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.refinery.errors import TerminalError
from flows.refinery.read.header import DROP, QUARANTINE_COLUMNS

ROW_NUMBER = QUARANTINE_COLUMNS[0]
DROPPED = "drop"  # in the column DROP


class CorrectionsUnusable(TerminalError):
    """Corrected rows cannot be read, change nothing, or do not match the file that they belong to."""


@dataclass(frozen=True)
class Corrections:
    """New values for some rows of a file. `rows` maps each row number to the row's values by column, where None is a
    missing value.

    The column DROP marks the rows to drop. Corrections that drop no rows may lack this column.
    """

    columns: tuple[str, ...]
    rows: Mapping[int, Mapping[str, str | None]]

    @property
    def dropped(self) -> frozenset[int]:
        """Return the numbers of the rows to drop."""
        return frozenset(number for number, row in self.rows.items() if row.get(DROP) == DROPPED)

    def over(self, earlier: Corrections) -> Corrections:
        """Return `earlier` with these corrections added. If both contain a cell, these corrections take precedence."""
        columns = (*earlier.columns, *(name for name in self.columns if name not in earlier.columns))
        merged = {number: {**earlier.rows.get(number, {}), **row} for number, row in self.rows.items()}
        return Corrections(columns, {**earlier.rows, **merged})

    def write(self, path: Path) -> None:
        """Write the corrections to a Parquet file, which `read_corrections` can read."""
        numbers = sorted(self.rows)
        data: dict[str, Any] = {ROW_NUMBER: pa.array(numbers, pa.int64())}
        for name in self.columns:
            data[name] = pa.array([self.rows[number].get(name) for number in numbers], pa.string())
        pq.write_table(pa.table(data), path, compression="zstd")


def read_corrections(path: Path) -> Corrections:
    """Read corrections from a Parquet file that `Corrections.write` wrote."""
    table = pq.read_table(path)
    columns = tuple(name for name in table.column_names if name != ROW_NUMBER)
    rows = {row[ROW_NUMBER]: {name: row[name] for name in columns} for row in table.to_pylist()}
    return Corrections(columns, rows)


def listed(numbers: Collection[int]) -> str:
    """Format row numbers for use in a sentence, such as `rows 3, 7`. At most 10 numbers are listed."""
    shown = sorted(numbers)
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return f"{'row' if len(shown) == 1 else 'rows'} {', '.join(map(str, shown[:10]))}{more}"
