"""Export quarantined rows as a CSV for people, and read corrected rows back. overlay.py puts them into their file."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.refinery.errors import TerminalError
from flows.refinery.read.header import QUARANTINE_COLUMNS
from flows.refinery.validate.quarantine import ROW_NUMBER

_PARQUET_MAGIC = b"PAR1"


class CorrectionsUnusable(TerminalError):
    """The corrected rows do not fit their file; the message names the rows or columns and the reason."""


@dataclass(frozen=True)
class Corrections:
    """The new values of some rows of a file: by row number the texts of `columns`, None where a value is missing."""

    columns: tuple[str, ...]
    rows: Mapping[int, Mapping[str, str | None]]

    def over(self, earlier: Corrections) -> Corrections:
        """Return these corrections on top of earlier ones; where both correct a row, these count."""
        columns = (*earlier.columns, *(name for name in self.columns if name not in earlier.columns))
        merged = {number: {**earlier.rows.get(number, {}), **row} for number, row in self.rows.items()}
        return Corrections(columns, {**earlier.rows, **merged})

    def write(self, path: Path) -> None:
        """Write the corrections to a Parquet file that `read_corrections` reads back."""
        numbers = sorted(self.rows)
        data: dict[str, Any] = {ROW_NUMBER: pa.array(numbers, pa.int64())}
        for name in self.columns:
            data[name] = pa.array([self.rows[number].get(name) for number in numbers], pa.string())
        pq.write_table(pa.table(data), path, compression="zstd")


def read_corrections(path: Path) -> Corrections:
    """Read a quarantine file as Sluice wrote it (Parquet), or the CSV that `export_quarantine` made from it.

    Raises:
        CorrectionsUnusable: the file is neither, or a row number is missing, not a number, or a duplicate.
    """
    columns, rows = _table_of(path)
    given = tuple(name for name in columns if name not in QUARANTINE_COLUMNS)
    corrected: dict[int, dict[str, str | None]] = {}
    for place, row in enumerate(rows, start=1):
        number = _row_number(row[ROW_NUMBER])
        if number is None:
            raise CorrectionsUnusable(f"{path.name}: line {place} has no row number in {ROW_NUMBER}")
        if number in corrected:
            raise CorrectionsUnusable(f"{path.name}: row {number} is there twice")
        values = {name: row[name] for name in given}
        if any(value is not None for value in values.values()):  # else an undecodable row that nobody filled in
            corrected[number] = values
    return Corrections(given, corrected)


def export_quarantine(quarantine: Path, destination: Path) -> int:
    """Write a quarantine file as CSV, to be corrected in an editor or spreadsheet; return how many rows it has.

    Texts are written unchanged, so that they can be read back unchanged: what a spreadsheet would take for a formula is
    not escaped.

    Raises:
        CorrectionsUnusable: the file is not a quarantine file.
    """
    columns, rows = _table_of(quarantine)
    with destination.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_as_cell(row[name]) for name in columns])
    return len(rows)


def _table_of(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    with path.open("rb") as file:
        is_parquet = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    try:
        if is_parquet:
            table = pq.read_table(path)
            columns, rows = table.column_names, table.to_pylist()
        else:
            with path.open(encoding="utf-8-sig", newline="") as text:
                columns, rows = _csv_table_of(path.name, text)
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise CorrectionsUnusable(
            f"{path.name} is neither a Parquet file nor a CSV in UTF-8: {type(error).__name__}"
        ) from None
    if ROW_NUMBER not in columns:
        raise CorrectionsUnusable(
            f"{path.name} has no column {ROW_NUMBER}: it is not a quarantine file, nor made from one"
        )
    return columns, rows


def _csv_table_of(name: str, text: IO[str]) -> tuple[list[str], list[dict[str, Any]]]:
    beginning = text.readline()
    text.seek(0)
    # Spreadsheet programs write the delimiter of their regional settings.
    delimiter = max(",;\t", key=beginning.count)
    records = csv.reader(text, delimiter=delimiter, strict=True)
    columns = next(records, [])
    rows = []
    for record in records:
        if not record:
            continue
        if len(record) != len(columns):
            raise CorrectionsUnusable(
                f"{name}: line {records.line_num} has {len(record)} fields, and the header has {len(columns)}"
            )
        rows.append({column: value or None for column, value in zip(columns, record, strict=True)})
    return columns, rows


def _row_number(value: Any) -> int | None:
    """Return whole numbers, also from texts such as "4.0", as pandas and spreadsheets write them."""
    text = str(value).strip().removesuffix(".0")
    return int(text) if text.isascii() and text.isdigit() else None


def _as_cell(value: Any) -> Any:
    if isinstance(value, list):
        return "; ".join("" if part is None else str(part) for part in value)
    return "" if value is None else value


def listed(numbers: Collection[int]) -> str:
    """Return row numbers as a list for a sentence."""
    shown = sorted(numbers)
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return f"{'row' if len(shown) == 1 else 'rows'} {', '.join(map(str, shown[:10]))}{more}"
