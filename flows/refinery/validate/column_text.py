"""Convert raw columns to text and to Arrow arrays, without changing a value."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.read.columns import text_values

_SAMPLED = 5_000
_SET_ASIDE = 32
TEXT = pa.large_string()
"""Arrow's type for texts in a task, which is also that of pandas, so texts need no conversion. Files have `string`."""
EXACT_IN_FLOAT = float(1 << 53)  # from here on not every integer is a float64


def as_text(raw: pd.Series) -> pd.Series:
    """Convert a raw column to text; missing values stay missing. Whole numbers have no decimal point."""
    return raw if isinstance(raw.dtype, pd.StringDtype) else pandas_column(text_array(raw), "str")


def text_array(raw: pd.Series) -> pa.Array:
    """Convert a raw column to an Arrow array of text; see `as_text`."""
    return text_of(raw_array(raw))


def raw_array(raw: pd.Series) -> pa.Array:
    """Convert a raw column to an Arrow array; an object column becomes text."""
    if pd.api.types.is_object_dtype(raw.dtype):
        raw = raw.map(_text_of, na_action="ignore").astype("str")
    return arrow_array(raw)


def text_of(raw: pa.Array) -> pa.Array:
    """Convert an array from `raw_array` to text."""
    if pa.types.is_floating(raw.type):
        return _float_text(raw)
    text = raw.cast(TEXT)
    if pa.types.is_timestamp(raw.type):
        text = pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")  # as a timestamp is written in a mixed column
    return text


def arrow_array(values: pd.Series) -> pa.Array:
    """Convert a column to one Arrow array; missing values are null."""
    array = pa.array(values, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def pandas_column(array: pa.Array | pa.ChunkedArray, dtype: str) -> pd.Series:
    """Convert an Arrow column to a pandas column with this dtype."""
    return pd.Series(pandas_values(array, dtype), copy=False)


def pandas_values(array: pa.Array | pa.ChunkedArray, dtype: str) -> Any:
    """Convert an Arrow column to the values of a pandas column with this dtype. A frame is made of values twice as fast
    as of columns."""
    if dtype == "str":
        return text_values(array.cast(TEXT))
    if dtype in ("Int64", "boolean"):
        nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        return array.to_pandas(types_mapper=nullable.get).array
    values = array.to_numpy() if isinstance(array, pa.ChunkedArray) else array.to_numpy(zero_copy_only=False)
    return values.astype(dtype, copy=False)


class Unreadable:
    """The few texts of a column that are known not to be values of its type, such as marks for a missing value.

    Without them, a column can be read at once and not value by value. They do not change the result.
    """

    def __init__(self) -> None:
        self._texts: pa.Array | None = None

    def set_aside(self, text: pa.Array) -> pa.Array:
        """Return the texts with null, without characters, in place of those that are known to be unreadable."""
        if self._texts is None:
            return text
        return pc.replace_with_mask(text, pc.is_in(text, self._texts), pa.scalar(None, TEXT))

    def learn(self, text: pa.Array, each: Callable[[pa.Array], pa.Array]) -> bool:
        """Add those of the first texts that `each` cannot read; return whether there were new ones, and only a few."""
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
    """Convert texts to another type, with null for those that cannot be read.

    Args:
        at_once: converts texts like `each`, but several times faster; returns None if it cannot read all of them.
        unreadable: texts known to be unreadable from other partitions.
    """
    read = at_once(unreadable.set_aside(text))
    if read is None and len(text) > _SAMPLED and unreadable.learn(text, each):
        read = at_once(unreadable.set_aside(text))
    return each(text) if read is None else read


def is_digits_and_marks(text: pa.Array) -> bool:
    """Return whether texts have no letters, so that what Arrow reads as numbers has no `0x`, no exponent and no `nan`.
    Texts that are missing and still have characters may have letters."""
    _, offsets, content = text.buffers()
    if content is None:
        return True
    start, end = np.frombuffer(offsets, dtype=np.int64)[[text.offset, text.offset + len(text)]].tolist()
    signs = np.frombuffer(content, dtype=np.uint8)[start:end]
    return bool(signs.max(initial=0) <= ord("9"))


def whole_numbers(numbers: pa.Array) -> pa.Array:
    """Convert floats to integers if they are whole and below 2**53, so exact; others become null."""
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), EXACT_IN_FLOAT))
    return pc.if_else(whole, numbers, None).cast(pa.int64())


def _text_of(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool):
        return "true" if value else "false"
    # As in a column of floats, so that the text does not depend on the partition's other values.
    return str(_float_text(pa.array([value]))[0]) if isinstance(value, float) else str(value)


def _float_text(floats: pa.Array) -> pa.Array:
    """Convert floats to text, large whole ones like integers: integers in a column with floats are read as floats."""
    size = pc.abs(floats)
    whole = pc.and_(pc.equal(floats, pc.floor(floats)), pc.and_(pc.less(size, EXACT_IN_FLOAT), pc.greater(size, 1e9)))
    return pc.if_else(whole, whole_numbers(floats).cast(TEXT), floats.cast(TEXT))
