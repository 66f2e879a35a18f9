"""Random files in the formats whose values have types: JSON, Parquet and XLSX."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from random import Random
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

from tests.cases.round_trip.compression import compressed
from tests.cases.round_trip.table import KINDS, LETTERS, Column, Kind, Written, a_table

_UNICODE = LETTERS + "äéßłЖ中ا€😀\u00a0\u202f"
_EXACT = 2**53
_EXCEL_KINDS: tuple[Kind, ...] = ("string", "string", "integer", "number", "boolean", "date", "timestamp", "time")


def contract_of(random: Random, columns: list[Column], form: dict[str, Any]) -> dict[str, Any] | None:
    """Return a contract that declares the columns and the format. If `form` is empty, it may instead be None, for the
    default contract."""
    if not form and random.random() < 0.5:
        return None
    declared = {column.name: {"type": column.kind, **column.options} for column in columns}
    return {"columns": declared, "format": form}


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_file(random: Random) -> Written:
    """Return a random JSON file, with one object on each line, an array of objects, or consecutive objects."""
    columns = a_table(random, _UNICODE, (*KINDS, "json"))
    contract = contract_of(random, columns, {})
    must_fail = plant_faults(random, columns) if contract else set()
    as_ascii = random.random() < 0.5
    shape = random.choice(["lines", "array", "pretty", "concatenated"])
    objects = []
    for row in zip(*(column.values for column in columns), strict=True):
        pairs = [
            f"{json.dumps(column.name)}: {_json_text(value, as_ascii)}"
            for column, value in zip(columns, row, strict=True)
            if value is not None or random.random() < 0.5
        ]
        objects.append("{" + (",\n  " if shape == "pretty" else ", ").join(pairs) + "}")
    text = {
        "lines": "\n".join(objects) + random.choice(["", "\n"]),
        "array": "[" + ",\n".join(objects) + "]",
        "pretty": "[\n" + ",\n".join(objects) + "\n]\n",
        "concatenated": "".join(objects),
    }[shape]
    encoding = random.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"])
    form, content = compressed(random, f"json {shape}", text.encode(encoding))
    is_named = [any(f"{json.dumps(column.name)}: " in text for text in objects) for column in columns]
    may_reject = set() if all(is_named) else {"missing_columns"}
    return Written(form, content, contract, columns, must_fail=must_fail, may_reject=may_reject)


def _json_text(value: Any, as_ascii: bool) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dt.datetime | dt.date | dt.time):
        value = value.isoformat()
    return json.dumps(value, ensure_ascii=as_ascii)


def plant_faults(random: Random, columns: list[Column]) -> set[int]:
    """In 3 of 10 files, replace a value in some rows with a string that is invalid for its column. Return the numbers
    of these rows."""
    typed = [column for column in columns if column.kind not in ("string", "json")]
    rows = len(columns[0].values)
    planted = {row for row in range(1, rows + 1) if random.random() < 0.1} if random.random() < 0.3 else set()
    for row in planted:
        random.choice(typed).values[row - 1] = "no such value"
    return planted


# --- Parquet ----------------------------------------------------------------------------------------------------------


def parquet_file(random: Random) -> Written:
    """Return a random Parquet file, with random physical types, row group sizes and compression."""
    columns = a_table(random, _UNICODE)
    arrays = {column.name: _arrow(random, column) for column in columns}
    content = io.BytesIO()
    pq.write_table(
        pa.table(arrays),
        content,
        row_group_size=random.choice([1, 3, 1000]),
        compression=random.choice(["snappy", "zstd", "gzip", "none"]),
        use_dictionary=random.random() < 0.5,
        data_page_version=random.choice(["1.0", "2.0"]),
    )
    return Written("parquet", content.getvalue(), contract_of(random, columns, {}), columns)


def _arrow(random: Random, column: Column) -> pa.Array:
    values = column.values
    kind: Any = column.kind
    if kind == "integer":
        greatest = max((abs(value) for value in values if value is not None), default=0)
        if all(value is None or value >= 0 for value in values):
            return pa.array(values, pa.uint64())
        types = [pa.int64(), *([pa.int32()] if greatest < 2**31 else []), *([pa.int8()] if greatest < 2**7 else [])]
        return pa.array(values, random.choice(types))
    if kind == "number":
        column.values = values = [None if value is None else float(value) for value in values]
        if random.random() < 0.3:
            column.values = [None if value is None else Decimal(f"{value:.2f}") for value in values]
            return pa.array(column.values, pa.decimal128(38, 2))
        return pa.array(values, pa.float64())
    if kind == "timestamp":
        zone = random.choice([None, "UTC", "Europe/Berlin"])
        bare = [None if value is None else value.replace(tzinfo=None) for value in values]
        unit = random.choice(["us", "ns"])
        array = pa.array(bare, pa.timestamp("us")).cast(pa.timestamp(unit))
        return array if zone is None else array.cast(pa.timestamp(unit, "UTC")).cast(pa.timestamp(unit, zone))
    types = {
        "string": [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
        "boolean": [pa.bool_()],
        "date": [pa.date32(), pa.date64()],
        "time": [pa.time64("us"), pa.time64("ns")],
    }[kind]
    chosen = random.choice(types)
    plain = chosen.value_type if pa.types.is_dictionary(chosen) else chosen
    array = pa.array(values, plain)
    return array.dictionary_encode() if pa.types.is_dictionary(chosen) else array


# --- XLSX -------------------------------------------------------------------------------------------------------------


def xlsx_file(random: Random) -> Written:
    """Return a random XLSX file with a single sheet. Sometimes the contract skips two lines above the table."""
    columns = a_table(random, LETTERS + "äéßЖ中😀", _EXCEL_KINDS)
    for column in columns:
        column.values = [_for_excel(value) for value in column.values]
    skip = random.choice([0, 0, 2])
    form = {"type": "xlsx", "skip_lines": skip} if skip else {}
    contract = contract_of(random, columns, form)
    must_fail = plant_faults(random, columns) if contract else set()
    book = openpyxl.Workbook()
    sheet = book.active
    for line in range(skip):
        sheet.append([f"title {line}"])
    sheet.append([column.name for column in columns])
    for place in range(len(columns[0].values)):
        for number, column in enumerate(columns, 1):
            value = column.values[place]
            cell = sheet.cell(skip + 2 + place, number)
            if isinstance(value, str):
                cell.value, cell.data_type = value, "s"  # a string, even if it looks like a formula or an error
            elif value is not None:
                cell.value = value.replace(tzinfo=None) if isinstance(value, dt.datetime) else value
    content = io.BytesIO()
    book.save(content)
    return Written("xlsx", content.getvalue(), contract, columns, must_fail=must_fail)


def _for_excel(value: Any) -> Any:
    """Convert a value to one that is read from a workbook as it was written: an integer below 2^53, a number with at
    most 15 digits, a time in whole seconds, or a date since March 1900."""
    if isinstance(value, str):
        return value if value.strip() else "x"  # openpyxl does not write strings of only spaces
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value % _EXACT if abs(value) >= _EXACT else value
    if isinstance(value, Decimal | float):
        return float(f"{value:.15g}")  # openpyxl does not write more digits
    if isinstance(value, dt.datetime | dt.time):
        return value.replace(microsecond=0)
    return value if value >= dt.date(1900, 3, 1) else value.replace(year=2000, day=min(value.day, 28))
