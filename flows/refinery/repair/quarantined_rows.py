"""Read quarantine files, and export them for correction in a text editor or a spreadsheet program."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.refinery.read.header import DROP, QUARANTINE_COLUMNS
from flows.refinery.repair.corrections import CorrectionsUnusable
from flows.refinery.repair.spreadsheet_texts import protected
from flows.refinery.repair.text_workbook import write_text_workbook
from flows.refinery.validate.quarantine import RAW, ROW_NUMBER, RULES
from flows.refinery.words import as_cell

WORKBOOK = ".xlsx"


@dataclass(frozen=True)
class QuarantinedRow:
    """A row of a quarantine file, or a row that an earlier repair corrected."""

    values: Mapping[str, str | None]  # by column, the string in the upload or its correction; None if it is missing
    rules: Sequence[str] = ()  # the IDs of the rules that the row broke
    is_decoded: bool = True  # whether the row could be decoded; if not, its values are unknown

    def is_bad(self, column: str) -> bool:
        """Return whether the row's value in a column may be wrong: a broken rule names the column or no column at all,
        or the row could not be decoded. If the row broke a rule, DROP counts as wrong, so that users may set it."""
        if column == DROP and self.rules:
            return True
        return not self.is_decoded or any(_concerns(rule, column) for rule in self.rules)


def read_quarantine(path: Path) -> dict[int, QuarantinedRow]:
    """Read the rows of a quarantine file, or of all quarantine files in a folder, by row number. Raise
    CorrectionsUnusable if a file is not a quarantine file."""
    return {
        row[ROW_NUMBER]: QuarantinedRow(
            {name: value for name, value in row.items() if name not in QUARANTINE_COLUMNS},
            row[RULES],
            is_decoded=row[RAW] is None,
        )
        for row in _table(path).to_pylist()
    }


def export_quarantine(quarantine: Path, destination: Path) -> int:
    """Export a quarantine file, or all quarantine files in a folder, for correction, and return the number of rows. The
    export has an additional empty column DROP.

    A destination that ends in .xlsx becomes a workbook of text cells. Any other destination becomes a CSV file with a
    byte order mark, in which each cell is in the form that `protected` returns.

    Raises:
        CorrectionsUnusable: `quarantine` is not a quarantine file.
        WorkbookTooSmall: the rows do not fit into a workbook.
    """
    table = _table(quarantine)
    table = table.add_column(1, DROP, pa.nulls(len(table), pa.string()))
    rows = ([as_cell(value) for value in row.values()] for row in table.to_pylist())
    if destination.suffix.lower() == WORKBOOK:
        write_text_workbook(destination, table.column_names, rows)
        return int(table.num_rows)
    with destination.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(protected, table.column_names))
        writer.writerows(map(protected, row) for row in rows)
    return int(table.num_rows)


def _table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise CorrectionsUnusable(f"{path.name} is not a Parquet file: {type(error).__name__}") from None
    if not set(QUARANTINE_COLUMNS) <= set(table.column_names):
        raise CorrectionsUnusable(f"{path.name} is not a quarantine file: it lacks columns that such a file has")
    return table


def _concerns(rule: str, column: str) -> bool:
    """Return whether a rule ID, such as not_a_number(price) or name(a, b)#2, names the column or names no column."""
    _, bracket, arguments = rule.partition("(")
    named = arguments.rpartition(")")[0]
    return not bracket or named == column or column in named.split(", ")
