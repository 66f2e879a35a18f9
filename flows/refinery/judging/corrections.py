"""Corrected quarantine rows: out as a CSV for people, in again, and merged with the file that they came from. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.refinery.contract.model import Column, Contract
from flows.refinery.errors import TerminalError
from flows.refinery.judging.quarantine import OWN_COLUMNS, ROW_NUMBER
from flows.refinery.reading.formats import read_partitions
from flows.refinery.reading.partition import Limits, Partition

_PARQUET_MAGIC = b"PAR1"
_DEFAULT_LIMITS = Limits()


class CorrectionsUnusable(TerminalError):
    """The corrected rows cannot be merged with their file; the message says which rows or columns, and why."""


@dataclass(frozen=True)
class Corrections:
    """What is to stand in some rows of a file.

    Attributes:
        columns: the columns that are given.
        rows: by row number the texts of these columns; None is a missing value.
    """

    columns: tuple[str, ...]
    rows: Mapping[int, Mapping[str, str | None]]

    def over(self, earlier: Corrections) -> Corrections:
        """These corrections on top of earlier ones: a row that both have is as it is here."""
        columns = (*earlier.columns, *(name for name in self.columns if name not in earlier.columns))
        merged = {number: {**earlier.rows.get(number, {}), **row} for number, row in self.rows.items()}
        return Corrections(columns, {**earlier.rows, **merged})

    def write(self, path: Path) -> None:
        """Keep them as a Parquet file that `read_corrections` reads back."""
        numbers = sorted(self.rows)
        data: dict[str, Any] = {ROW_NUMBER: pa.array(numbers, pa.int64())}
        for name in self.columns:
            data[name] = pa.array([self.rows[number].get(name) for number in numbers], pa.string())
        pq.write_table(pa.table(data), path, compression="zstd")


def read_corrections(path: Path) -> Corrections:
    """Read a quarantine file as Sluice wrote it (Parquet), or the CSV that `export_quarantine` made of it.

    Raises:
        CorrectionsUnusable: it is neither, or a row number is missing, no number, or there twice.
    """
    columns, rows = _table_of(path)
    if ROW_NUMBER not in columns:
        raise CorrectionsUnusable(f"{path.name} has no column {ROW_NUMBER}: it is no quarantine file, nor made of one")
    given = tuple(name for name in columns if name not in OWN_COLUMNS)
    corrected: dict[int, dict[str, str | None]] = {}
    for place, row in enumerate(rows, start=1):
        try:
            number = int(str(row[ROW_NUMBER]))
        except ValueError:
            raise CorrectionsUnusable(f"{path.name}: line {place} has no row number in {ROW_NUMBER}") from None
        if number in corrected:
            raise CorrectionsUnusable(f"{path.name}: row {number} is there twice")
        values = {name: row[name] for name in given}
        if any(value is not None for value in values.values()):  # an undecodable row that nobody filled in stays so
            corrected[number] = values
    return Corrections(given, corrected)


def export_quarantine(quarantine: Path, destination: Path) -> int:
    """Write a quarantine file as CSV, to be corrected in an editor or spreadsheet; return how many rows it has.

    Texts stay exactly as they are, so that they come back as they went: what a spreadsheet would take for a formula
    is not escaped.

    Raises:
        CorrectionsUnusable: it is no quarantine file.
    """
    columns, rows = _table_of(quarantine)
    if ROW_NUMBER not in columns:
        raise CorrectionsUnusable(f"{quarantine.name} is no quarantine file: it has no column {ROW_NUMBER}")
    with destination.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_as_cell(row[name]) for name in columns])
    return len(rows)


def merge_into_csv(
    source: Path, contract: Contract, corrections: Corrections, destination: Path, *, limits: Limits = _DEFAULT_LIMITS
) -> None:
    """Write a CSV file again with the corrections in the rows that they belong to; all other texts stay as they are.

    Raises:
        CorrectionsUnusable: the file is no CSV, has no such columns or rows, or has rows that could not be decoded and
            are not corrected.
        FileRejected: the file cannot be read.
    """
    first = next(read_partitions(source, contract, limits=limits))
    names = list(map(str, first.frame.columns))
    _require_mergeable(first, names, corrections)
    delimiter = first.source_format.delimiter or ","
    # As text, with nothing that means "missing": so every field is read as it was written.
    exact = contract.model_copy(
        update={
            "columns": {name: Column(type="string") for name in names},
            "format": contract.format.model_copy(update={"missing_values": (), "delimiter": delimiter}),
        }
    )
    encoding = contract.format.encoding or "utf-8"
    left = set(corrections.rows)
    try:
        with destination.open("w", encoding=encoding, newline="") as file:
            file.write("\n" * contract.format.skip_lines)
            writer = csv.writer(file, delimiter=delimiter, quotechar=contract.format.quote, lineterminator="\n")
            writer.writerow(names)
            for partition in read_partitions(source, exact, limits=limits):
                writer.writerows(_merged_rows(partition, names, contract, corrections, left))
    except UnicodeEncodeError:
        raise CorrectionsUnusable(f"a corrected value cannot be written in the file's encoding, {encoding}") from None
    if left:
        raise CorrectionsUnusable(f"the file has no {_listed(left)}")


def _require_mergeable(first: Partition, names: Sequence[str], corrections: Corrections) -> None:
    if first.source_format.type != "csv":
        raise CorrectionsUnusable(
            f"the file is {first.source_format.type}; only CSV files can be repaired row by row. "
            "Correct the file itself and upload it again under its key"
        )
    unknown = [name for name in corrections.columns if name not in names]
    if unknown:
        raise CorrectionsUnusable(f"the file has no column {', '.join(map(repr, unknown))}")


def _merged_rows(
    partition: Partition, names: Sequence[str], contract: Contract, corrections: Corrections, left: set[int]
) -> Iterator[list[str]]:
    uncorrected = [misfit.row_number for misfit in partition.misfits if misfit.row_number not in corrections.rows]
    if uncorrected:
        raise CorrectionsUnusable(f"{_listed(uncorrected)} could not be decoded, and must be filled in too")
    decoded = zip(partition.row_numbers.tolist(), partition.frame.itertuples(index=False, name=None), strict=True)
    rows: dict[int, list[str]] = {number: ["" if _is_missing(v) else str(v) for v in row] for number, row in decoded}
    numbers = sorted([*rows, *(misfit.row_number for misfit in partition.misfits)])
    for number in numbers:
        row = rows.get(number)
        if number in corrections.rows:
            left.discard(number)
            row = _corrected(row, names, contract, corrections.rows[number])
        yield row or []


def _corrected(
    row: Sequence[str] | None, names: Sequence[str], contract: Contract, values: Mapping[str, str | None]
) -> list[str]:
    texts = []
    for place, name in enumerate(names):
        written = row[place] if row is not None else None
        value = values.get(name) if name in values else written
        texts.append(value if value is not None else _missing_text(contract, name, written))
    return texts


def _missing_text(contract: Contract, name: str, written: str | None) -> str:
    """How a missing value is written: as it was, where it was missing, or else as the contract first names it."""
    column = contract.columns.get(name)
    marks = contract.format.missing_values
    if column is not None and column.missing_values is not None:
        marks = column.missing_values
    if written is not None and written in marks:
        return written
    return "" if "" in marks or not marks else marks[0]


def _table_of(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    with path.open("rb") as file:
        is_parquet = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    try:
        if is_parquet:
            table = pq.read_table(path)
            return table.column_names, table.to_pylist()
        with path.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, restval="", strict=True)
            rows = [{name: value or None for name, value in row.items()} for row in reader]
            return list(reader.fieldnames or []), rows
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise CorrectionsUnusable(
            f"{path.name} is neither a Parquet file nor a CSV in UTF-8: {type(error).__name__}"
        ) from None


def _as_cell(value: Any) -> Any:
    if isinstance(value, list):
        return "; ".join("" if part is None else str(part) for part in value)
    return "" if value is None else value


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN is what differs from itself


def _listed(numbers: Sequence[int] | set[int]) -> str:
    shown = sorted(numbers)
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return f"{'row' if len(shown) == 1 else 'rows'} {', '.join(map(str, shown[:10]))}{more}"
