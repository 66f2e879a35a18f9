"""Convert the columns of a partition to strings and to Arrow arrays, without changing a value."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.read.columns import text_values

_SAMPLED = 5_000
_SET_ASIDE = 32
TEXT = pa.large_string()
"""The Arrow type of strings while a file is processed. pandas uses the same type, so no conversion is needed. In
published files, strings have the type `string`."""
EXACT_IN_FLOAT = float(1 << 53)  # a float64 can represent every integer below this limit


def as_text(raw: pd.Series) -> pd.Series:
    """Convert a column as it was read to strings. Missing values stay missing, and integers have no decimal point."""
    return raw if isinstance(raw.dtype, pd.StringDtype) else pandas_column(text_array(raw), "str")


def text_array(raw: pd.Series) -> pa.Array:
    """Convert a column as it was read to an Arrow array of strings; see `as_text`."""
    return text_of(raw_array(raw))


def raw_array(raw: pd.Series) -> pa.Array:
    """Convert a column as it was read to an Arrow array. The values in a column of dtype object become strings."""
    if pd.api.types.is_object_dtype(raw.dtype):
        raw = raw.map(_text_of, na_action="ignore").astype("str")
    return arrow_array(raw)


def text_of(raw: pa.Array) -> pa.Array:
    """Convert the result of `raw_array` to strings."""
    if pa.types.is_floating(raw.type):
        return _float_text(raw)
    text = raw.cast(TEXT)
    if pa.types.is_timestamp(raw.type):
        text = pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")  # the same string as in a column of mixed types
    return text


def arrow_array(values: pd.Series) -> pa.Array:
    """Convert a pandas column to a single Arrow array, in which missing values are null."""
    held = values.array
    # With a column, pa.array looks for all other types first, which takes ten times as long.
    array = pa.array(held if hasattr(held, "__arrow_array__") else values, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def pandas_column(array: pa.Array | pa.ChunkedArray, dtype: str) -> pd.Series:
    return pd.Series(pandas_values(array, dtype), copy=False)


def pandas_values(array: pa.Array | pa.ChunkedArray, dtype: str) -> Any:
    """Convert an Arrow column to the values of a pandas column with the given dtype. Creating a frame from such values
    is twice as fast as from Series."""
    if dtype == "str":
        return text_values(array.cast(TEXT))
    if dtype in ("Int64", "boolean"):
        nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        return array.to_pandas(types_mapper=nullable.get).array
    values = array.to_numpy() if isinstance(array, pa.ChunkedArray) else array.to_numpy(zero_copy_only=False)
    return values.astype(dtype, copy=False)


class Unreadable:
    """A few strings in a column that are known not to be values of its type, such as "n/a" in a column of numbers.

    Without these strings, the whole column can be converted in one operation instead of value by value. The result is
    the same.
    """

    def __init__(self) -> None:
        self._texts: pa.Array | None = None

    def set_aside(self, text: pa.Array) -> pa.Array:
        """Replace the strings that are known to be unreadable with null. The buffer of the result does not contain
        their characters either."""
        if self._texts is None:
            return text
        return pc.replace_with_mask(text, pc.is_in(text, self._texts), pa.scalar(None, TEXT))

    def learn(self, text: pa.Array, each: Callable[[pa.Array], pa.Array]) -> bool:
        """Look for strings that `each` cannot convert at the beginning of a column. If there are new ones, and only a
        few in total, add them and return True. Otherwise return False."""
        sample = text.slice(0, _SAMPLED)
        found = sample.filter(pc.and_(sample.is_valid(), each(sample).is_null()))
        known = found if self._texts is None else pa.concat_arrays([self._texts, found])
        known = known.unique()
        is_more = len(known) > (0 if self._texts is None else len(self._texts))
        if is_more and len(known) <= _SET_ASIDE:
            self._texts = known
            return True
        return False


def read_texts(
    text: pa.Array,
    at_once: Callable[[pa.Array], pa.Array | None],
    each: Callable[[pa.Array], pa.Array],
    unreadable: Unreadable,
) -> pa.Array:
    """Convert strings to another type. Those that cannot be converted become null.

    Args:
        at_once: converts strings like `each`, but several times faster; returns None if it cannot convert all of them.
        each: converts strings; those that cannot be converted become null.
        unreadable: strings in the same column, perhaps in other partitions, that cannot be converted.
    """
    read = at_once(unreadable.set_aside(text))
    if read is None and len(text) > _SAMPLED and unreadable.learn(text, each):
        read = at_once(unreadable.set_aside(text))
    return each(text) if read is None else read


def has_no_letters(text: pa.Array) -> bool:
    """Return whether no byte of the strings sorts after `9`. Then Arrow cannot read any of them as a number with `0x`
    or an exponent, or as `nan`. Bytes behind missing values are checked, too."""
    _, offsets, content = text.buffers()
    if content is None:
        return True
    start, end = np.frombuffer(offsets, dtype=np.int64)[[text.offset, text.offset + len(text)]].tolist()
    signs = np.frombuffer(content, dtype=np.uint8)[start:end]
    return bool(signs.max(initial=0) <= ord("9"))


def whole_numbers(numbers: pa.Array) -> pa.Array:
    """Convert floats to integers if they are whole and their absolute value is below 2**53, where floats are exact.
    Other floats become null."""
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), EXACT_IN_FLOAT))
    return pc.if_else(whole, numbers, None).cast(pa.int64())


def _text_of(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"  # str would write 0.00000001 as 1E-8
    # A float gets the same string as in a column of floats, so that it does not depend on the other values.
    return str(_float_text(pa.array([value]))[0]) if isinstance(value, float) else str(value)


def _float_text(floats: pa.Array) -> pa.Array:
    """Convert floats to strings. Large whole numbers are written like integers, because integers in a column with
    floats are read as floats."""
    size = pc.abs(floats)
    whole = pc.and_(pc.equal(floats, pc.floor(floats)), pc.and_(pc.less(size, EXACT_IN_FLOAT), pc.greater(size, 1e9)))
    return pc.if_else(whole, whole_numbers(floats).cast(TEXT), floats.cast(TEXT))
