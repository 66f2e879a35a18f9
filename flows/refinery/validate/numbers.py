"""Convert the values in a file to integers and floats, according to the file's decimal and thousands separators."""

import re
from functools import partial

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.contract.model import SAME_MARKS, Column
from flows.refinery.read.partition import SourceFormat
from flows.refinery.validate.column_text import (
    Unreadable,
    has_no_letters,
    read_texts,
    text_array,
    whole_numbers,
)

INTEGER = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
MAX_INTEGER = (1 << 63) - 1
MAX_DIGITS = 20  # with the sign; longer integers do not fit into 64 bits
_SAFE_INTEGER_DIGITS = 18  # every integer with this many digits fits into 64 bits


def read_integer(raw: pd.Series, _: Column, source_format: SourceFormat, unreadable: Unreadable) -> pa.Array:
    dtype = raw.dtype
    if pd.api.types.is_integer_dtype(dtype) and not pd.api.types.is_unsigned_integer_dtype(dtype):
        return pa.array(raw, from_pandas=True).cast(pa.int64())
    if pd.api.types.is_float_dtype(dtype):
        return whole_numbers(pa.array(raw, from_pandas=True))
    each = partial(_each_integer, source_format)
    return read_texts(text_array(raw), _integers_at_once, each, unreadable)


def _integers_at_once(text: pa.Array) -> pa.Array | None:
    """Convert strings to integers, with the same result as `_each_integer`, if all are in the form -15 and have at most
    18 characters. Otherwise return None."""
    longest = pc.max(pc.binary_length(text)).as_py() or 0
    if longest > _SAFE_INTEGER_DIGITS or not has_no_letters(text):
        return None
    try:
        return text.cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def _each_integer(source_format: SourceFormat, text: pa.Array) -> pa.Array:
    text = _with_plain_marks(text, source_format)
    short = pc.and_(
        pc.match_substring_regex(text, INTEGER),
        pc.less_equal(pc.utf8_length(text), _SAFE_INTEGER_DIGITS),
    )
    integers = pc.if_else(short, text, None).cast(pa.int64())
    rest = pc.if_else(pc.fill_null(short, False), None, text)
    if rest.null_count == len(rest):
        return integers
    return pc.coalesce(integers, _long_integers(rest), whole_numbers(_numbers(rest)))


def read_number(raw: pd.Series, _: Column, source_format: SourceFormat, unreadable: Unreadable) -> pa.Array:
    if pd.api.types.is_numeric_dtype(raw.dtype) and not pd.api.types.is_bool_dtype(raw.dtype):
        numbers = pa.array(raw, from_pandas=True).cast(pa.float64(), safe=False)
    else:
        at_once, each = partial(_numbers_at_once, source_format), partial(_each_number, source_format)
        numbers = read_texts(text_array(raw), at_once, each, unreadable)
    if source_format.type == "csv":
        numbers = pc.add(numbers, 0.0)  # turns -0.0 into 0.0: "-0" is 0 in a column of integers
    is_finite = pc.is_finite(numbers)
    return pc.if_else(is_finite, numbers, None) if is_finite.false_count else numbers


def _numbers_at_once(source_format: SourceFormat, text: pa.Array) -> pa.Array | None:
    """Convert strings to floats, with the same result as `_each_number`, if all are in the form -1.5 and the file has
    no other separators. Otherwise return None."""
    has_marks = source_format.decimal != "." or source_format.thousands
    if has_marks or not has_no_letters(text):
        return None
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def _each_number(source_format: SourceFormat, text: pa.Array) -> pa.Array:
    return _numbers(_with_plain_marks(text, source_format))


def plain_numbers(raw: pd.Series, source_format: SourceFormat) -> pa.Array:
    """Return a column's numbers as strings without thousands separators, and with a decimal point."""
    return _with_plain_marks(text_array(raw), source_format)


def _with_plain_marks(text: pa.Array, source_format: SourceFormat) -> pa.Array:
    text = pc.utf8_trim_whitespace(text)
    if source_format.thousands:
        mark = source_format.thousands
        if mark in SAME_MARKS:
            text = pc.replace_substring_regex(text, f"[{SAME_MARKS[mark]}]", mark)
        grouped = pc.match_substring_regex(text, rf"^[+-]?[0-9]{{1,3}}(\x{ord(mark):02x}[0-9]{{3}})+([^0-9].*)?$")
        text = pc.if_else(grouped, pc.replace_substring(text, mark, ""), text)
    if source_format.decimal != ".":
        # A point is not the decimal separator of this file, so it must not be read as one.
        pointed = pc.match_substring(text, ".")
        text = pc.if_else(pointed, "not a number", pc.replace_substring(text, source_format.decimal, "."))
    if pc.any(pc.starts_with(text, "+")).as_py():  # Arrow's cast does not accept a plus sign
        text = pc.replace_substring_regex(text, r"^\+([0-9.])", r"\1")
    return text


def _numbers(text: pa.Array) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(text, NUMBER), text, None).cast(pa.float64())


def _long_integers(text: pa.Array) -> pa.Array:
    """Convert strings to integers one by one. Strings that are not integers, and integers that do not fit into 64 bits,
    become null."""
    low, high = -MAX_INTEGER - 1, MAX_INTEGER

    def read(value: str | None) -> int | None:
        if value is None or not re.fullmatch(INTEGER, value):
            return None
        number = int(value) if len(value) <= MAX_DIGITS else high + 1
        return number if low <= number <= high else None

    return pa.array([read(value) for value in text.to_pylist()], type=pa.int64())
