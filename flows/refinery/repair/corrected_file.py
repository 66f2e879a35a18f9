"""Read a file of corrected rows: Parquet, XLSX, or CSV as text editors and spreadsheet programs save it."""

import csv
import datetime as dt
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from python_calamine import CalamineError, CalamineWorkbook

from flows.refinery.read.csv_dialect import DELIMITERS
from flows.refinery.read.csv_numbers import is_ambiguous_number
from flows.refinery.read.text_source import CANDIDATES, encoding_of
from flows.refinery.repair.corrections import ROW_NUMBER, CorrectionsUnusable
from flows.refinery.repair.spreadsheet_texts import unprotected

Rows = Mapping[int, Mapping[str, str | None]]

_PARQUET, _ZIP = b"PAR1", b"PK\x03\x04"
_HOW_TO_SAVE = (
    "save it as an Excel workbook (.xlsx) or as CSV UTF-8, or export the rows again to a .xlsx file and correct that"
)


@dataclass(frozen=True)
class CorrectedFile:
    """The rows of a corrected file by row number. Each cell is a string, or None if it is empty."""

    columns: tuple[str, ...]
    rows: Rows
    # whether cells may be in the form that `protected` writes
    may_be_protected: bool = True


def read_corrected_file(path: Path, exported: Rows) -> CorrectedFile:
    """Read a file of corrected rows.

    Args:
        exported: the rows as they were exported; the encoding of a CSV file that is not in Unicode is inferred from
            them.

    Raises:
        CorrectionsUnusable: the file is not Parquet, XLSX or CSV, its encoding cannot be determined, it has no column
            of row numbers, a row has more fields than the header, or a row number is missing, invalid or a duplicate.
    """
    content = path.read_bytes()
    try:
        if content.startswith(_PARQUET):
            return _corrected_file(path.name, _parquet_rows(content), may_be_protected=False)
        if content.startswith(_ZIP):
            return _corrected_file(path.name, _workbook_rows(content))
        return _read_csv(path.name, content, exported)
    except (pa.ArrowException, CalamineError, csv.Error, UnicodeError) as error:
        raise CorrectionsUnusable(
            f"{path.name} is neither a Parquet file nor a workbook nor CSV: {type(error).__name__}; {_HOW_TO_SAVE}"
        ) from None


def _corrected_file(name: str, table: Iterator[Sequence[Any]], *, may_be_protected: bool = True) -> CorrectedFile:
    columns = [str(value) for value in next(table, ())]
    while columns and not columns[-1]:
        columns.pop()
    if ROW_NUMBER not in columns:
        raise CorrectionsUnusable(f"{name} has no column {ROW_NUMBER}: it was not made from a quarantine file")
    rows: dict[int, dict[str, str | None]] = {}
    for place, values in enumerate(table, start=1):
        if not any(value not in (None, "") for value in values):
            continue
        if any(value not in (None, "") for value in values[len(columns) :]):
            raise CorrectionsUnusable(f"{name}: row {place} has more fields than the header, which has {len(columns)}")
        # Excel leaves out empty cells at the end of a line.
        texts = [_text(value) for value in values[: len(columns)]] + [None] * (len(columns) - len(values))
        row = dict(zip(columns, texts, strict=True))
        number = _row_number(row.pop(ROW_NUMBER))
        if number is None:
            raise CorrectionsUnusable(f"{name}: row {place} has no row number in {ROW_NUMBER}")
        if number in rows:
            raise CorrectionsUnusable(f"{name}: row {number} is in it twice")
        rows[number] = row
    return CorrectedFile(tuple(column for column in columns if column != ROW_NUMBER), rows, may_be_protected)


def _text(value: Any) -> str | None:
    """Convert a cell to a string, or to None if it is empty."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, float) and is_ambiguous_number(str(value)):
        return f"{value}0"  # if the point is the thousands separator, 2.125 would be read as 2125
    if isinstance(value, dt.datetime):
        return str(value.date() if value.time() == dt.time() else value)
    return str(value)


def _row_number(text: str | None) -> int | None:
    """Parse a row number, which pandas or a spreadsheet program may have written as "4.0". Return None if it is not a
    row number."""
    plain = unprotected(text or "").strip().removesuffix(".0")
    return int(plain) if plain.isascii() and plain.isdigit() else None


# --- formats ----------------------------------------------------------------------------------------------------------


def _parquet_rows(content: bytes) -> Iterator[Sequence[Any]]:
    table = pq.read_table(pa.BufferReader(content))
    yield table.column_names
    for row in table.to_pylist():
        yield list(row.values())


def _workbook_rows(content: bytes) -> Iterator[Sequence[Any]]:
    """Return the rows of the first sheet that has a column of row numbers, or else of the first sheet."""
    workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
    sheets = [workbook.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in workbook.sheet_names]
    return iter(next((rows for rows in sheets if rows and ROW_NUMBER in rows[0]), sheets[0] if sheets else []))


def _csv_rows(text: str) -> Iterator[Sequence[str]]:
    lines = io.StringIO(text, newline="")
    if text.startswith("sep="):  # a line that sets Excel's delimiter
        lines.readline()
    beginning = lines.tell()
    header = lines.readline()
    # Spreadsheet programs use the delimiter of the regional settings.
    delimiter = next((mark for mark in DELIMITERS if ROW_NUMBER in next(csv.reader([header], delimiter=mark), [])), ",")
    lines.seek(beginning)
    return csv.reader(lines, delimiter=delimiter, strict=True)


# --- the encoding of CSV ----------------------------------------------------------------------------------------------


def _read_csv(name: str, content: bytes, exported: Rows) -> CorrectedFile:
    def read(text: str) -> CorrectedFile:
        return _corrected_file(name, _csv_rows(text))

    mark, proven = encoding_of(content, None)
    try:
        return read(content[len(mark) :].decode(proven or "utf-8"))
    except UnicodeDecodeError:
        return _by_evidence(name, content, exported, read)


def _by_evidence(name: str, content: bytes, exported: Rows, read: Callable[[str], CorrectedFile]) -> CorrectedFile:
    """Read a CSV file in the encoding that gives the most non-ASCII cells with their exported value. Encodings that
    decode the file in the same way count as one. Raise CorrectionsUnusable if several encodings are equally good, or if
    none gives such a cell."""
    readings = []
    for text in _readings(content):
        with suppress(CorrectionsUnusable, csv.Error):  # in this encoding, the file is not a table of corrected rows
            readings.append(read(text))
    right = [_non_ascii_cells_as_exported(reading, exported) for reading in readings]
    most = max(right, default=0)
    best = [reading for reading, cells in zip(readings, right, strict=True) if cells == most]
    if not most or len(best) > 1:
        raise CorrectionsUnusable(
            f"{name} is not in UTF-8, and a comparison with the exported rows does not show its encoding;"
            f" {_HOW_TO_SAVE}"
        )
    return best[0]


def _readings(content: bytes) -> set[str]:
    texts = set()
    for encoding in CANDIDATES:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not any("\x80" <= sign < "\xa0" for sign in text):  # control characters, which people do not type
            texts.add(text)
    return texts


def _non_ascii_cells_as_exported(reading: CorrectedFile, exported: Rows) -> int:
    return sum(
        value is not None and not value.isascii() and value in (cell, unprotected(cell or ""))
        for number, row in reading.rows.items()
        for column, cell in row.items()
        for value in [exported.get(number, {}).get(column)]
    )
