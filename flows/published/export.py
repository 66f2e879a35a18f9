"""Write published rows to a file, batch by batch. The file's extension selects CSV, Parquet or an Excel workbook."""

import datetime as dt
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from flows.published.rows import PublishedRows
from flows.refinery.errors import TerminalError
from flows.refinery.repair.spreadsheet_texts import protected
from flows.refinery.repair.text_workbook import MAX_CELL_CHARACTERS, MAX_COLUMNS, MAX_ROWS, WorkbookTooSmall

_FORMULA = r"^[=+\-@\t\r]"
_EXACT_IN_A_CELL = 10**15  # a cell stores 15 digits
_FIRST_DAY = dt.date(1900, 3, 1)  # spreadsheet programs number earlier days differently
_DAY, _MOMENT = "yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss"


class ExportUnknown(TerminalError):
    """The name of the file to export to does not end in .csv, .parquet or .xlsx."""


def export_rows(rows: PublishedRows, destination: Path) -> int:
    """Write rows to a file, and return the number of rows. The file does not appear until it is complete.

    Raises:
        ExportUnknown: the file's extension is not supported.
        WorkbookTooSmall: the rows do not fit into a workbook.
        ColumnsDiffer: a number does not fit into the type that its column has in all runs together.
        OSError: the file cannot be written.
    """
    write = _WRITERS.get(destination.suffix.lower())
    if write is None:
        raise ExportUnknown(f"{destination.name}: the extension must be one of {', '.join(_WRITERS)}")
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        written = write(rows, partial)
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)
    return written


def _write_parquet(rows: PublishedRows, path: Path) -> int:
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        return _all(rows, writer.write_batch)


def _write_csv(rows: PublishedRows, path: Path) -> int:
    """Write rows as CSV. Text that a spreadsheet program would run as a formula is written as `="..."`."""
    schema = pa.schema([(each.name, pa.string() if _is_text(each.type) else each.type) for each in rows.schema])
    with pa_csv.CSVWriter(str(path), schema) as writer:
        return _all(
            rows, lambda batch: writer.write_batch(pa.record_batch(list(map(_csv_column, batch.columns)), schema))
        )


def _all(rows: PublishedRows, write: Callable[[pa.RecordBatch], None]) -> int:
    written = 0
    for batch in rows.batches():
        write(batch)
        written += batch.num_rows
    return written


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_nested(kind) or pa.types.is_binary(kind))


def _csv_column(column: pa.Array) -> pa.Array:
    if not _is_text(column.type):
        return column
    if not pa.types.is_string(column.type):
        column = pa.array([_text(value) for value in column.to_pylist()], pa.string())
    dangerous = pc.fill_null(pc.match_substring_regex(column, _FORMULA), False)
    if not pc.any(dangerous).as_py():
        return column
    return pc.replace_with_mask(
        column, dangerous, pa.array(list(map(protected, column.filter(dangerous).to_pylist())), pa.string())
    )


def _text(value: Any) -> str | None:
    """Convert a value to a string. A list of strings (such as failed rules) is joined with semicolons, other values
    that are not strings become JSON, and None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(part is None or isinstance(part, str) for part in value):
        return "; ".join(part or "" for part in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _write_workbook(rows: PublishedRows, path: Path) -> int:
    """Write rows as a workbook. Strings become text cells, so that none is run as a formula. Timestamps are in UTC."""
    from xlsxwriter import Workbook

    if len(rows.schema) > MAX_COLUMNS:
        raise _too_small(f"{len(rows.schema):,} columns do")
    with Workbook(str(path), {"constant_memory": True}) as workbook:
        sheet = workbook.add_worksheet(rows.dataset[:31])
        formats = {pattern: workbook.add_format({"num_format": pattern}) for pattern in (_DAY, _MOMENT)}
        for column, name in enumerate(rows.schema.names):
            sheet.write_string(0, column, name)
        number = 0
        for number, row in enumerate(_plain_rows(rows), start=1):
            if number >= MAX_ROWS:
                raise _too_small(f"more than {MAX_ROWS - 1:,} rows do")
            for column, value in enumerate(row):
                _write_cell(sheet, number, column, value, formats)
        return number


def _plain_rows(rows: PublishedRows) -> Iterator[tuple[Any, ...]]:
    for batch in rows.batches():
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _write_cell(sheet: Any, row: int, column: int, value: Any, formats: dict[str, Any]) -> None:
    match value:
        case None:
            pass
        case bool():
            sheet.write_boolean(row, column, value)
        case int() | float() if math.isfinite(value) and abs(value) < _EXACT_IN_A_CELL:
            sheet.write_number(row, column, value)
        case dt.datetime() if value.date() >= _FIRST_DAY:
            sheet.write_datetime(row, column, value.replace(tzinfo=None), formats[_MOMENT])
        case dt.date() if not isinstance(value, dt.datetime) and value >= _FIRST_DAY:
            sheet.write_datetime(row, column, value, formats[_DAY])
        case _:
            text = str(value) if isinstance(value, int | float | dt.date | dt.time) else _text(value) or ""
            if len(text) > MAX_CELL_CHARACTERS:
                raise _too_small(f"a value of {len(text):,} characters in row {row:,} does")
            sheet.write_string(row, column, text)


def _too_small(what: str) -> WorkbookTooSmall:
    return WorkbookTooSmall(f"{what} not fit into a workbook; export to a .parquet or .csv file")


_WRITERS: dict[str, Callable[[PublishedRows, Path], int]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".xlsx": _write_workbook,
}
