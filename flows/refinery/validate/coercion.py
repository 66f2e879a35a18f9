"""Convert the columns of a partition to the contract's types, and mark the values that cannot be converted."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.contract.model import Column
from flows.refinery.read.json_depth import is_nested_too_deep
from flows.refinery.read.partition import SourceFormat
from flows.refinery.validate.column_text import TEXT, Unreadable, arrow_array, as_text, pandas_values, text_array
from flows.refinery.validate.moments import read_date, read_time, read_timestamp, time_text
from flows.refinery.validate.numbers import read_integer, read_number

# The Arrow types in which rows are stored. In published files, strings have the type `string`.
ARROW_TYPES: dict[str, pa.DataType] = {
    "string": TEXT,
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "json": TEXT,
}
# For each type, the rule that a value breaks if it does not have that type.
TYPE_RULES: dict[str, str] = {
    "string": "not_a_string",
    "integer": "not_an_integer",
    "number": "not_a_number",
    "boolean": "not_a_boolean",
    "timestamp": "not_a_timestamp",
    "date": "not_a_date",
    "time": "not_a_time",
    "json": "not_json",
}
MISSING_RULE = "missing_value"

_TRUE = ("true", "t", "yes", "y", "1", "1.0")
_FALSE = ("false", "f", "no", "n", "0", "0.0")
_PLAIN_MARKS = SourceFormat(type="jsonl")


@dataclass(frozen=True)
class Coerced:
    """A column of a partition, converted to the contract's type."""

    kind: str
    array: pa.Array  # of the type in ARROW_TYPES; null if the value is missing or could not be converted
    unreadable: np.ndarray  # a mask of the rows whose value exists but could not be converted
    missing: np.ndarray  # a mask of the rows without a value

    @cached_property
    def values(self) -> pd.Series:
        """Return the column in the dtype that GX checks."""
        return pd.Series(judged_values(self.array, self.kind), copy=False)


def coerce(
    raw: pd.Series, column: Column, source_format: SourceFormat = _PLAIN_MARKS, unreadable: Unreadable | None = None
) -> Coerced:
    """Convert a column as it was read to the type that the contract declares. No value causes an error.

    Args:
        unreadable: strings that could not be converted in other partitions; those in this partition may be added.
    """
    missing = _is_missing(raw)
    array = _READERS[column.type](raw, column, source_format, unreadable or Unreadable())
    if array.type != ARROW_TYPES[column.type]:
        array = array.cast(ARROW_TYPES[column.type])
    is_unread = np.zeros(len(raw), dtype=bool)
    if array.null_count > np.count_nonzero(missing):
        is_unread = array.is_null().to_numpy(zero_copy_only=False) & ~missing
        # A string that means a missing value may have spaces around it, or consist only of spaces.
        marks = ("",) if column.missing_values is None else column.missing_values
        texts = pc.utf8_trim_whitespace(text_array(raw[is_unread]))
        marked = pc.is_in(texts, pa.array(marks, TEXT)).to_numpy(zero_copy_only=False)
        places = np.flatnonzero(is_unread)[marked]
        missing[places], is_unread[places] = True, False
    return Coerced(column.type, array, is_unread, missing)


def _is_missing(raw: pd.Series) -> np.ndarray:
    if not isinstance(raw.dtype, pd.StringDtype):
        return raw.isna().to_numpy(copy=True)
    missing: np.ndarray = raw.array.isna()
    return missing


def judged_values(array: pa.Array | pa.ChunkedArray, kind: str) -> Any:
    """Convert a column with a type in ARROW_TYPES to the dtype that GX checks, which `dtype_of` returns. Timestamps are
    in UTC without a time zone, dates are timestamps at midnight, and times and JSON are strings."""
    if kind in ("timestamp", "date"):
        array = array.cast(pa.timestamp("us"))
    elif kind == "time":
        array = time_text(array)
    return pandas_values(array, dtype_of(kind, nulls=array.null_count > 0))


def to_arrow(values: pd.Series, kind: str) -> pa.Array:
    """Convert a column from the dtype that GX checks to the type in ARROW_TYPES."""
    array = arrow_array(values)
    wanted = ARROW_TYPES[kind]
    if array.type == wanted:
        return array
    if kind == "time":
        return read_time(values, Column(type="time"))
    if pa.types.is_null(array.type) or kind not in ("timestamp", "date"):
        return array.cast(wanted)
    return array.cast(pa.timestamp("us")).cast(wanted)


def holds_only(kind: str, values: pd.Series) -> bool:
    """Return whether all values of a column that are not missing can be published with the type `kind`."""
    return not coerce(values, Column.model_validate({"type": kind})).unreadable.any()


def dtype_of(kind: str, *, nulls: bool) -> str:
    """Return the pandas dtype in which GX checks a column of the given type. `nulls` is whether values are missing."""
    if kind == "integer":
        return "Int64" if nulls else "int64"
    if kind == "boolean":
        return "boolean" if nulls else "bool"
    if kind in ("timestamp", "date"):
        return "datetime64[us]"
    return "float64" if kind == "number" else "str"


# --- readers: one per type --------------------------------------------------------------------------------------------


def _read_boolean(raw: pd.Series, *_: object) -> pa.Array:
    if pd.api.types.is_bool_dtype(raw.dtype):
        return pa.array(raw, from_pandas=True)
    texts = text_array(raw).dictionary_encode()  # so that each distinct string is converted once
    text = pc.utf8_lower(pc.utf8_trim_whitespace(texts.dictionary))
    yes = pc.is_in(text, pa.array(_TRUE))
    no = pc.is_in(text, pa.array(_FALSE))
    return pc.if_else(pc.or_(yes, no), yes, None).take(texts.indices)


def _read_json(raw: pd.Series, *_: object) -> pa.Array:
    return arrow_array(as_text(raw).map(_json_or_none, na_action="ignore").astype("str"))


_READERS: dict[str, Callable[[pd.Series, Column, SourceFormat, Unreadable], pa.Array]] = {
    "string": lambda raw, *_: text_array(raw),
    "integer": read_integer,
    "number": read_number,
    "boolean": _read_boolean,
    "timestamp": read_timestamp,
    "date": read_date,
    "time": read_time,
    "json": _read_json,
}


def _json_or_none(value: str) -> str | None:
    try:
        found = _JSON.decode(value)
    except (ValueError, RecursionError):
        return None
    return None if is_nested_too_deep(found, value) else value


def _no_json(constant: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python's JSON decoder would accept."""
    raise ValueError(constant)


_JSON = json.JSONDecoder(parse_int=float, parse_constant=_no_json)  # float accepts any number of digits
