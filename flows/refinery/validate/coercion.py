"""From raw columns to the contract's types. What cannot be read as its type is a reason for quarantine."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.contract.model import Column
from flows.refinery.read.csv_numbers import is_ambiguous_number
from flows.refinery.read.json_depth import is_nested_too_deep
from flows.refinery.read.partition import SourceFormat

Kind = Literal["string", "integer", "number", "boolean", "timestamp", "date", "time", "json"]
# Integers that a float64 cannot tell apart: integers among integers, texts among numbers that are no integers.
Inferred = Kind | Literal["great_integer"]

# How good rows are kept and published.
ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "json": pa.string(),
}
# The rule that a value breaks when it is not of its column's type.
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

_INTEGER = r"^[+-]?[0-9]+$"
_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_SIGNED_INTEGER = r"^([+-]?0[0-9]+|\+[0-9]+)$"  # its text holds more than its value
_LIKE_NUMBER = re.compile(r"[ \t]*[+-]?[.,]?[0-9]")
_MAX_DIGITS = 20  # with the sign; longer integers do not fit 64 bits
_TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?$"
_ZONE = r"[Tt ][0-9:.,]+\s*([Zz]|[+-][0-9]{2}:?([0-9]{2})?)\s*$"
_ISO_DAY = r"^\s*[0-9]{4}(-[0-9]{2}-[0-9]{2}|[0-9]{4})([Tt ]|\s*$)"
_FIRST_MOMENT, _LAST_MOMENT = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")
_LAST_YEAR = 9999
_CALENDAR_CYCLE = pd.Timedelta(days=146_097).as_unit("us")
_TRUE = ("true", "t", "yes", "y", "1", "1.0")
_FALSE = ("false", "f", "no", "n", "0", "0.0")
_SAFE_INTEGER_DIGITS = 18  # every integer of so many digits fits 64 bits
_EXACT_IN_FLOAT = float(1 << 53)
_MAX_INTEGER = (1 << 63) - 1  # undeclared columns with greater ones keep their digits as text
_PLAIN_MARKS = SourceFormat(type="jsonl")


@dataclass(frozen=True)
class Coerced:
    """One column in the contract's type.

    Attributes:
        values: as GX judges them: str, int64 or Int64, float64, bool or boolean, datetime64[us] (UTC, without a zone;
            dates at midnight); times and JSON are text. Missing where the raw value was, or could not be read.
        unreadable: mask of the rows whose value is there but is not of the type.
        missing: mask of the rows without a value.
    """

    values: pd.Series
    unreadable: np.ndarray
    missing: np.ndarray


def coerce(raw: pd.Series, column: Column, source_format: SourceFormat = _PLAIN_MARKS) -> Coerced:
    """Read a raw column as the type that its contract declares. Never raises for a value."""
    missing = raw.isna().to_numpy()
    values = _READERS[column.type](raw, column, source_format)
    unreadable = values.isna().to_numpy() & ~missing
    return Coerced(values.reset_index(drop=True), unreadable, missing)


def as_text(raw: pd.Series) -> pd.Series:
    """A raw column as text, missing where a value is missing. Whole numbers have no decimal point."""
    if isinstance(raw.dtype, pd.StringDtype):
        return raw
    if pd.api.types.is_object_dtype(raw.dtype):
        return raw.map(_text_of, na_action="ignore").astype("str")
    array = pa.array(raw, from_pandas=True)
    text = _float_text(array) if pa.types.is_floating(array.type) else array.cast(pa.string())
    if pa.types.is_timestamp(array.type):
        text = pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")  # as a moment among texts is written
    return pandas_column(text, "str")


def text_array(raw: pd.Series) -> pa.Array:
    """A raw column as Arrow's text; see `as_text`."""
    return arrow_array(as_text(raw)).cast(pa.string())


def arrow_array(values: pd.Series) -> pa.Array:
    """A column as one Arrow array, null where a value is missing."""
    array = pa.array(values, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def pandas_column(array: pa.Array | pa.ChunkedArray, dtype: str) -> pd.Series:
    """An Arrow column as a pandas column of a dtype."""
    if dtype == "str":
        return pd.Series(pd.array(array.cast(pa.string()), dtype="str"))
    if dtype in ("Int64", "boolean"):
        return pd.Series(array.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get))
    column: pd.Series = array.to_pandas().astype(dtype)
    return column


def to_arrow(values: pd.Series, kind: str) -> pa.Array:
    """A coerced column as it is kept and published."""
    array = arrow_array(values)
    wanted = ARROW_TYPES[kind]
    if array.type == wanted:
        return array
    if kind == "time":
        return _times(array.cast(pa.string()))
    if pa.types.is_null(array.type) or kind not in ("timestamp", "date"):
        return array.cast(wanted)
    return array.cast(pa.timestamp("us")).cast(wanted)


def time_text(times: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Times of day as GX and the steps have them, in one form: 08:00:00, or with six digits 08:00:00.500000."""
    return pc.replace_substring_regex(times.cast(pa.string()), r"\.0+$", "")


def holds_only(kind: str, values: pd.Series) -> bool:
    """Whether all values of a column can be published as this type, missing ones aside."""
    return not coerce(values, Column.model_validate({"type": kind})).unreadable.any()


def dtype_of(kind: str, *, nulls: bool) -> str:
    """The pandas dtype in which GX judges a column of this type."""
    if kind == "integer":
        return "Int64" if nulls else "int64"
    if kind == "boolean":
        return "boolean" if nulls else "bool"
    if kind in ("timestamp", "date"):
        return "datetime64[us]"
    return "float64" if kind == "number" else "str"


def empty_column(kind: str, rows: int) -> pd.Series:
    """A column of missing values, as GX judges it."""
    return pd.Series(None, index=pd.RangeIndex(rows), dtype=dtype_of(kind, nulls=True))


# --- types of columns that the contract does not name -----------------------------------------------------------------


def infer_kind(raw: pd.Series, source_format: SourceFormat = _PLAIN_MARKS) -> Inferred | None:
    """The type of a column that the contract does not name; None where it holds no value.

    The type of a whole file is the join of its partitions' types, whatever their size, and so depends on each value by
    itself: whole numbers are integers even where pandas needed floats to hold a missing value among them, and in CSV
    also where the column was kept as text for the sake of another value.
    """
    if raw.notna().sum() == 0:
        return None
    dtype = raw.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(dtype):
        return _integer_kind(int(raw.min()), int(raw.max()))
    if pd.api.types.is_float_dtype(dtype):
        return _float_kind(raw.dropna().to_numpy(dtype="float64"))
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "timestamp"
    if pd.api.types.is_object_dtype(dtype):
        return _infer_objects(raw.dropna())
    return _infer_texts(raw.dropna(), source_format) if source_format.type == "csv" else "string"


def join_kinds(one: Inferred | None, other: Inferred | None) -> Inferred | None:
    """The narrowest type that holds the values of both."""
    if one == other or other is None:
        return one
    return other if one is None else _JOINS.get(frozenset({one, other}), "string")


def settled_kind(kind: Inferred | None) -> Kind:
    """The type in the contract's words, once all values are known."""
    return "integer" if kind == "great_integer" else kind or "string"


_JOINS: dict[frozenset[Inferred], Inferred] = {
    frozenset({"date", "timestamp"}): "timestamp",
    frozenset({"integer", "number"}): "number",
    frozenset({"integer", "great_integer"}): "great_integer",
}


def _integer_kind(low: int, high: int) -> Inferred:
    if low < -_MAX_INTEGER - 1 or high > _MAX_INTEGER:
        return "string"
    return "integer" if max(-low, high) < _EXACT_IN_FLOAT else "great_integer"


def _float_kind(values: np.ndarray) -> Inferred:
    whole = np.isfinite(values).all() and (values == np.floor(values)).all()
    return "integer" if whole and (np.abs(values) < _EXACT_IN_FLOAT).all() else "number"


def _infer_objects(values: pd.Series) -> Inferred:
    kinds = {type(value) for value in values}
    if kinds <= {bool}:
        return "boolean"
    if kinds <= {int, float}:
        integers = [value for value in values if type(value) is int]
        floats = np.array([value for value in values if type(value) is float], dtype="float64")
        return _joined_numbers(integers, floats)
    if kinds & {dict, list}:
        return "json"
    if kinds <= {dt.date, dt.datetime}:
        return "date" if kinds == {dt.date} else "timestamp"
    return "time" if kinds <= {dt.time} else "string"


def _infer_texts(values: pd.Series, source_format: SourceFormat) -> Inferred:
    """The type of texts in CSV, each taken for what it would be by itself."""
    if not _LIKE_NUMBER.match(values.iloc[0]):
        return "string"  # decided at once for most columns
    decimal = source_format.decimal
    texts = pc.utf8_trim(text_array(values), " \t")
    if not source_format.is_decimal_proven and any(map(is_ambiguous_number, pc.unique(texts).to_pylist())):
        return "string"
    number = _NUMBER.replace(r"\.", rf"\x{ord(decimal):02x}")
    signed = pc.match_substring_regex(texts, _SIGNED_INTEGER)
    if pc.any(signed).as_py() or not pc.all(pc.match_substring_regex(texts, number)).as_py():
        return "string"
    whole = pc.match_substring_regex(texts, _INTEGER)
    integers = pc.unique(texts.filter(whole)).to_pylist()
    rest = pc.replace_substring(texts.filter(pc.invert(whole)), decimal, ".")
    floats = pc.utf8_ltrim(rest, "+").cast(pa.float64()).to_numpy(zero_copy_only=False)
    if not np.isfinite(floats).all() or any(len(text) > _MAX_DIGITS for text in integers):
        return "string"
    return _joined_numbers(list(map(int, integers)), floats)


def _joined_numbers(integers: list[int], floats: np.ndarray) -> Inferred:
    one = _integer_kind(min(integers), max(integers)) if integers else None
    return join_kinds(one, _float_kind(floats) if len(floats) else None) or "string"


# --- readers: one per type --------------------------------------------------------------------------------------------


def _read_integer(raw: pd.Series, _: Column, source_format: SourceFormat) -> pd.Series:
    dtype = raw.dtype
    if pd.api.types.is_integer_dtype(dtype) and not pd.api.types.is_unsigned_integer_dtype(dtype):
        return _integers(pa.array(raw, from_pandas=True).cast(pa.int64()))
    if pd.api.types.is_float_dtype(dtype):
        return _integers(_whole(pa.array(raw, from_pandas=True)))
    text = _plain_numbers(raw, source_format)
    short = pc.and_(
        pc.match_substring_regex(text, _INTEGER),
        pc.less_equal(pc.utf8_length(text), _SAFE_INTEGER_DIGITS),
    )
    integers = pc.if_else(short, text, None).cast(pa.int64())
    rest = pc.if_else(pc.fill_null(short, False), None, text)
    if rest.null_count == len(rest):
        return _integers(integers)
    return _integers(pc.coalesce(integers, _long_integers(rest), _whole(_numbers(rest))))


def _read_number(raw: pd.Series, _: Column, source_format: SourceFormat) -> pd.Series:
    if pd.api.types.is_numeric_dtype(raw.dtype) and not pd.api.types.is_bool_dtype(raw.dtype):
        numbers = pa.array(raw, from_pandas=True).cast(pa.float64(), safe=False)
    else:
        numbers = _numbers(_plain_numbers(raw, source_format))
    if source_format.type == "csv":
        numbers = pc.add(numbers, 0.0)  # "-0" is 0 as a whole number, and -0.0 among fractions
    finite = pc.if_else(pc.is_finite(numbers), numbers, None)
    return pandas_column(finite, "float64")


def _read_boolean(raw: pd.Series, _: Column, __: SourceFormat) -> pd.Series:
    if pd.api.types.is_bool_dtype(raw.dtype):
        flags = pa.array(raw, from_pandas=True)
    else:
        text = pc.utf8_lower(pc.utf8_trim_whitespace(text_array(raw)))
        yes = pc.is_in(text, pa.array(_TRUE))
        no = pc.is_in(text, pa.array(_FALSE))
        flags = pc.if_else(pc.or_(yes, no), yes, None)
    return pandas_column(flags, "boolean" if flags.null_count else "bool")


def _read_timestamp(raw: pd.Series, column: Column, _: SourceFormat) -> pd.Series:
    moments = _moments(raw, column.format)
    if column.timezone is None or getattr(raw.dtype, "tz", None) is not None:
        return moments
    # An hour that a change of the clocks skips or repeats names no moment.
    shift = _away_from_the_ends(moments)
    located = (moments + shift).dt.tz_localize(column.timezone, ambiguous="NaT", nonexistent="NaT")
    in_utc = _within_calendar(located.dt.tz_convert("UTC").dt.tz_localize(None) - shift)
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        return in_utc
    if column.format is not None:
        return moments if "%z" in column.format else in_utc
    zoned = pc.match_substring_regex(text_array(raw), _ZONE)
    has_zone = zoned.fill_null(False).to_numpy(zero_copy_only=False)
    read: pd.Series = in_utc.where(~has_zone, moments)
    return read


def _read_date(raw: pd.Series, column: Column, _: SourceFormat) -> pd.Series:
    moments = _moments(raw, column.format)
    return moments.where(moments == moments.dt.normalize())


def _read_time(raw: pd.Series, column: Column, _: SourceFormat) -> pd.Series:
    if column.format is not None:
        timed = _given_as(raw, dt.time)  # cells that are times already, among texts in the form that the contract gives
        moments = _read_by_format(as_text(raw.mask(timed)), column.format)
        read: pd.Series = moments.dt.strftime("%H:%M:%S.%f").astype("str").str.removesuffix(".000000")
        return read.mask(timed, as_text(raw)) if timed.any() else read
    text = pc.utf8_trim_whitespace(text_array(raw))
    times = pc.if_else(pc.match_substring_regex(text, _TIME), text, None)
    short = pc.equal(pc.utf8_length(times), len("08:00"))
    times = pc.if_else(short, pc.binary_join_element_wise(times, ":00", ""), times)
    return pandas_column(time_text(_times(times)), "str")


def _read_json(raw: pd.Series, _: Column, __: SourceFormat) -> pd.Series:
    return as_text(raw).map(_json_or_none, na_action="ignore").astype("str")


_READERS: dict[str, Callable[[pd.Series, Column, SourceFormat], pd.Series]] = {
    "string": lambda raw, _, __: as_text(raw),
    "integer": _read_integer,
    "number": _read_number,
    "boolean": _read_boolean,
    "timestamp": _read_timestamp,
    "date": _read_date,
    "time": _read_time,
    "json": _read_json,
}


# --- pieces of readers ------------------------------------------------------------------------------------------------


def _plain_numbers(raw: pd.Series, source_format: SourceFormat) -> pa.Array:
    """Numbers as text without thousands marks, with a point as the decimal mark."""
    text = pc.utf8_trim_whitespace(text_array(raw))
    if source_format.thousands:
        mark = source_format.thousands
        grouped = pc.match_substring_regex(text, rf"^[+-]?[0-9]{{1,3}}(\x{ord(mark):02x}[0-9]{{3}})+([^0-9].*)?$")
        text = pc.if_else(grouped, pc.replace_substring(text, mark, ""), text)
    if source_format.decimal != ".":
        # A point is then no decimal mark: it must not be read as one.
        pointed = pc.match_substring(text, ".")
        text = pc.if_else(pointed, "not a number", pc.replace_substring(text, source_format.decimal, "."))
    return pc.replace_substring_regex(text, r"^\+([0-9.])", r"\1")  # Arrow's cast takes no plus sign


def _numbers(text: pa.Array) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None).cast(pa.float64())


def _whole(numbers: pa.Array) -> pa.Array:
    """Floats as integers where they are whole and a float holds them exactly; else null."""
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), _EXACT_IN_FLOAT))
    return pc.if_else(whole, numbers, None).cast(pa.int64())


def _long_integers(text: pa.Array) -> pa.Array:
    """Integers of more digits than surely fit: one by one, null where they do not fit."""
    low, high = -_MAX_INTEGER - 1, _MAX_INTEGER

    def read(value: str | None) -> int | None:
        if value is None or not re.fullmatch(_INTEGER, value):
            return None
        number = int(value) if len(value) <= 20 else high + 1
        return number if low <= number <= high else None

    return pa.array([read(value) for value in text.to_pylist()], type=pa.int64())


def _moments(raw: pd.Series, written: str | None) -> pd.Series:
    """Timestamps in UTC without a zone; NaT where they cannot be read."""
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        moments = raw
    elif written is not None and (dated := _given_as(raw, dt.date)).any():
        # Cells that are dates already, among texts in the form that the contract gives.
        return _moments(raw.where(dated), None).where(dated, _moments(as_text(raw.mask(dated)), written))
    elif written is None and (plain := _plain_moments(raw)) is not None:
        return plain
    else:
        text: Any = as_text(raw)
        if written is None:
            # One value with nanoseconds would narrow the range of years of all the others.
            short = pc.replace_substring_regex(text_array(raw), r"(\.[0-9]{6})[0-9]+", r"\1")
            # pandas also takes a year alone for a moment, and "-3" for a year.
            text = pandas_column(pc.if_else(pc.match_substring_regex(short, _ISO_DAY), short, None), "str")
            moments = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
        else:
            moments = _read_by_format(text, written)
    if moments.dt.tz is not None:
        moments = moments.dt.tz_convert("UTC").dt.tz_localize(None)
    return _within_calendar(moments).astype("datetime64[us]")


def _read_by_format(text: pd.Series, written: str) -> pd.Series:
    """Moments in UTC, by strftime's codes.

    pandas takes the second 60 for the next minute, and the day 366 and the week 53 of any year for days of the next:
    such values would be other ones when they are written again.
    """
    moments = pd.to_datetime(text, format=written, errors="coerce", utc=True)
    doubtful = moments.notna()
    if not re.search("%[jUW]", written):
        doubtful &= (moments.dt.second < 2) & text.str.contains("6[01]", na=False)
    rolled_over = np.zeros(len(text), dtype=bool)
    for place in np.flatnonzero(doubtful):
        again = pd.to_datetime(text.iloc[place], format=written).strftime(written)
        rolled_over[place] = _digits(again) != _digits(text.iloc[place])
    return moments.mask(rolled_over)


def _digits(text: str) -> str:
    """A moment's digits, without zeros, which may be left out, and without those of nanoseconds."""
    return re.sub(r"[^1-9]", "", re.sub(r"(\.\d{6})\d+", r"\1", text))


def _given_as(raw: pd.Series, kind: type[dt.date] | type[dt.time]) -> pd.Series:
    """Which values a typed format gives as dates (or moments), or as times, and not as texts."""
    if not pd.api.types.is_object_dtype(raw.dtype):
        return pd.Series(np.zeros(len(raw), dtype=bool), index=raw.index)
    found: pd.Series = raw.map(lambda value: value is not pd.NaT and isinstance(value, kind)).astype(bool)
    return found


def _plain_moments(raw: pd.Series) -> pd.Series | None:
    """All values at once, ten times faster, where all of them are ISO 8601 without a zone; else None."""
    try:
        array = text_array(raw).cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return None
    return _within_calendar(pandas_column(array, "datetime64[us]"))


def _away_from_the_ends(moments: pd.Series) -> pd.Series:
    """400 years for the first and the last of the calendar, after which days and clocks repeat: Python cannot localize
    what may end in the year 0 or 10000."""
    years = moments.dt.year
    cycles = (years == 1).astype("int64") - (years == _LAST_YEAR).astype("int64")
    shift: pd.Series = cycles * _CALENDAR_CYCLE
    return shift


def _within_calendar(moments: pd.Series) -> pd.Series:
    """Only the years 1 to 9999: Python and most databases cannot hold others."""
    within: pd.Series = moments.where((moments >= _FIRST_MOMENT) & (moments <= _LAST_MOMENT))
    return within


def _times(text: pa.Array) -> pa.Array:
    """Texts as 08:00:00 or 08:00:00.5 as times of day."""
    moments = pc.binary_join_element_wise("1970-01-01", text, " ")
    return moments.cast(pa.timestamp("us")).cast(ARROW_TYPES["time"])


def _integers(array: pa.Array) -> pd.Series:
    return pandas_column(array, "Int64" if array.null_count else "int64")


def _text_of(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool):
        return "true" if value else "false"
    # As a column of floats is written, so that the text does not depend on what else a partition holds.
    return str(_float_text(pa.array([value]))[0]) if isinstance(value, float) else str(value)


def _float_text(floats: pa.Array) -> pa.Array:
    """Floats as text, whole ones as integers are written: integers among floats are read as floats."""
    size = pc.abs(floats)
    whole = pc.and_(pc.equal(floats, pc.floor(floats)), pc.and_(pc.less(size, _EXACT_IN_FLOAT), pc.greater(size, 1e9)))
    return pc.if_else(whole, _whole(floats).cast(pa.string()), floats.cast(pa.string()))


def _json_or_none(value: str) -> str | None:
    try:
        found = _JSON.decode(value)
    except (ValueError, RecursionError):
        return None
    return None if is_nested_too_deep(found, value) else value


def _no_json(constant: str) -> None:
    """NaN and Infinity, which Python would take."""
    raise ValueError(constant)


_JSON = json.JSONDecoder(parse_int=float, parse_constant=_no_json)  # float takes any number of digits
