"""Infer the types of columns that the contract does not name. A column's type is the narrowest type that fits all of
its values."""

import datetime as dt
import re
from collections.abc import Collection
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.read.csv_numbers import CODE, MANY_DIGITS, MARKED, is_ambiguous_number, is_kept_by_float
from flows.refinery.read.partition import SourceFormat
from flows.refinery.validate.column_text import EXACT_IN_FLOAT, TEXT, text_array
from flows.refinery.validate.numbers import INTEGER, MAX_DIGITS, MAX_INTEGER, NUMBER

Kind = Literal["string", "integer", "number", "boolean", "timestamp", "date", "time", "json"]
# A great_integer is at least 2**53, where floats are no longer exact. A column with such integers and other integers is
# an integer column; a column with such integers and fractions is a string column.
Inferred = Kind | Literal["great_integer"]

_MORE_THAN_VALUE = rf"^({MARKED}|{CODE})$"  # strings that would lose information as numbers
_LIKE_NUMBER = re.compile(r"[ \t]*[+-]?[.,]?[0-9]")
_FLAGS = ("true", "True", "TRUE", "false", "False", "FALSE")
_PLAIN_MARKS = SourceFormat(type="jsonl")


def infer_kind(
    raw: pd.Series, source_format: SourceFormat = _PLAIN_MARKS, marks: Collection[str] = ("",)
) -> Inferred | None:
    """Infer the type of an undeclared column in one partition. Return None if there are no values.

    The type of a column in a file is the join of its types in all partitions, and must not depend on where the file is
    cut. So it depends only on the individual values, not on how pandas stores them: whole numbers are integers even if
    pandas has stored them as floats because a value is missing.

    Args:
        marks: the strings that are missing values, unless the column's other values are text.
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
    values = raw.dropna()
    if pd.api.types.is_object_dtype(dtype):
        values = values[~values.map(lambda value: isinstance(value, str) and value.strip() in marks)]
        return _infer_objects(values) if len(values) else None
    if values.iloc[0].strip() in marks:
        values = values[~values.str.strip().isin(marks)]
    if values.empty:
        return None
    return _infer_texts(values, source_format, marks) if source_format.type == "csv" else "string"


def join_kinds(one: Inferred | None, other: Inferred | None) -> Inferred | None:
    """Return the narrowest type that fits the values of both types."""
    if one == other or other is None:
        return one
    return other if one is None else _JOINS.get(frozenset({one, other}), "string")


def settled_kind(kind: Inferred | None) -> Kind:
    """Convert a type that was inferred from all values of a column to a type that contracts have. A column without
    values gets the type string."""
    return "integer" if kind == "great_integer" else kind or "string"


_JOINS: dict[frozenset[Inferred], Inferred] = {
    frozenset({"date", "timestamp"}): "timestamp",
    frozenset({"integer", "number"}): "number",
    frozenset({"integer", "great_integer"}): "great_integer",
}


def _integer_kind(low: int, high: int) -> Inferred:
    if low < -MAX_INTEGER - 1 or high > MAX_INTEGER:
        return "string"
    return "integer" if max(-low, high) < EXACT_IN_FLOAT else "great_integer"


def _float_kind(values: np.ndarray) -> Inferred:
    whole = np.isfinite(values).all() and (values == np.floor(values)).all()
    return "integer" if whole and (np.abs(values) < EXACT_IN_FLOAT).all() else "number"


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


def _infer_texts(values: pd.Series, source_format: SourceFormat, marks: Collection[str]) -> Inferred:
    """Infer the type of the strings in a CSV column."""
    if values.iloc[0].strip() in _FLAGS:
        return "boolean" if values.isin([*_FLAGS, *marks]).all() else "string"
    if not _LIKE_NUMBER.match(values.iloc[0]):
        return "string"  # the first value is enough to decide most text columns
    decimal = source_format.decimal
    texts = pc.utf8_trim(text_array(values), " \t")
    texts = texts.filter(pc.invert(pc.is_in(texts, pa.array(marks, TEXT))))
    if not source_format.is_decimal_proven and any(map(is_ambiguous_number, pc.unique(texts).to_pylist())):
        return "string"
    if decimal == "." and (plain := _plain_kind(texts)):
        return plain
    number = NUMBER.replace(r"\.", rf"\x{ord(decimal):02x}")
    more = pc.match_substring_regex(texts, _MORE_THAN_VALUE)
    if pc.any(more).as_py() or not pc.all(pc.match_substring_regex(texts, number)).as_py():
        return "string"
    whole = pc.match_substring_regex(texts, INTEGER)
    integers = pc.unique(texts.filter(whole)).to_pylist()
    rest = pc.replace_substring(texts.filter(pc.invert(whole)), decimal, ".")
    floats = pc.utf8_ltrim(rest, "+").cast(pa.float64()).to_numpy(zero_copy_only=False)
    if not np.isfinite(floats).all() or any(len(text) > MAX_DIGITS for text in integers) or _loses_digits(rest):
        return "string"
    return _joined_numbers(list(map(int, integers)), floats)


def _plain_kind(texts: pa.Array) -> Inferred | None:
    """Return the type if all strings are numbers below 2**53, written as Arrow writes floats. Otherwise return None.
    This check is five times faster than the general one."""
    try:
        floats = texts.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    if not pc.all(pc.less(pc.abs(floats), EXACT_IN_FLOAT)).as_py() or not floats.cast(TEXT).equals(texts):
        return None
    return _float_kind(floats.to_numpy(zero_copy_only=False))


def _loses_digits(fractions: pa.Array) -> bool:
    """Return whether any of the numbers has more digits than a float keeps."""
    many = fractions.filter(pc.match_substring_regex(fractions, MANY_DIGITS))
    if not len(many):
        return False
    written = pc.utf8_ltrim(many, "+").cast(pa.float64()).cast(TEXT)
    return not all(map(is_kept_by_float, pc.unique(many.filter(pc.not_equal(many, written))).to_pylist()))


def _joined_numbers(integers: list[int], floats: np.ndarray) -> Inferred:
    one = _integer_kind(min(integers), max(integers)) if integers else None
    return join_kinds(one, _float_kind(floats) if len(floats) else None) or "string"
