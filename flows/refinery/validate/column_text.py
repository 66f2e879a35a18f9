"""Raw columns as text and as Arrow arrays, without changing a value."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.read.columns import text_column

_SAMPLED = 5_000
_SET_ASIDE = 32
EXACT_IN_FLOAT = float(1 << 53)  # from here on not every integer is a float64


def as_text(raw: pd.Series) -> pd.Series:
    """Return a raw column as text, missing where a value is missing. Whole numbers have no decimal point."""
    return raw if isinstance(raw.dtype, pd.StringDtype) else pandas_column(text_array(raw), "str")


def text_array(raw: pd.Series) -> pa.Array:
    """Return a raw column as Arrow's text; see `as_text`."""
    return text_of(raw_array(raw))


def raw_array(raw: pd.Series) -> pa.Array:
    """Return a raw column as an Arrow array; values of several types are text in it."""
    if pd.api.types.is_object_dtype(raw.dtype):
        raw = raw.map(_text_of, na_action="ignore").astype("str")
    return arrow_array(raw)


def text_of(raw: pa.Array) -> pa.Array:
    """Return the values of a `raw_array` as text."""
    if pa.types.is_floating(raw.type):
        return _float_text(raw)
    text = raw.cast(pa.string())
    if pa.types.is_timestamp(raw.type):
        text = pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")  # as a moment among texts is written
    return text


def arrow_array(values: pd.Series) -> pa.Array:
    """Return a column as one Arrow array, null where a value is missing."""
    array = pa.array(values, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def pandas_column(array: pa.Array | pa.ChunkedArray, dtype: str) -> pd.Series:
    """Return an Arrow column as a pandas column of a dtype."""
    if dtype == "str":
        return text_column(array.cast(pa.string()))
    if dtype in ("Int64", "boolean"):
        return pd.Series(array.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get))
    column: pd.Series = array.to_pandas().astype(dtype)
    return column


class Unreadable:
    """The few texts of a column that are known to be no values of its type, such as signs for a missing value.

    To know them saves a search, and changes no value.
    """

    def __init__(self) -> None:
        self._texts: pa.Array | None = None

    def set_aside(self, text: pa.Array) -> pa.Array:
        """Return texts, null where one is known."""
        return text if self._texts is None else pc.if_else(pc.is_in(text, self._texts), None, text)

    def learn(self, text: pa.Array, each: Callable[[pa.Array], pa.Array]) -> bool:
        """Look at the first texts; return whether there are a few that `each` cannot read and that were not known."""
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
    """Return texts in another type, null where one cannot be read.

    Args:
        at_once: reads texts several times faster than `each`, to the same values; None where it cannot read all.
        unreadable: what other partitions showed.
    """
    read = at_once(unreadable.set_aside(text))
    if read is None and len(text) > _SAMPLED and unreadable.learn(text, each):
        read = at_once(unreadable.set_aside(text))
    return each(text) if read is None else read


def has_only(text: pa.Array, signs: bytes) -> bool:
    """Return whether texts have no other characters than some of ASCII."""
    _, offsets, content = pc.fill_null(text, "").buffers()  # what is missing may still have characters
    if content is None:
        return True
    start = text.offset if not text.null_count else 0
    start, end = np.frombuffer(offsets, dtype=np.int32)[[start, start + len(text)]].tolist()
    return not bytes(content[start:end]).translate(None, signs)


def whole_numbers(numbers: pa.Array) -> pa.Array:
    """Return floats as integers where they are whole and a float holds them exactly; else null."""
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), EXACT_IN_FLOAT))
    return pc.if_else(whole, numbers, None).cast(pa.int64())


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
    """Return floats as text, whole ones as integers are written: integers among floats are read as floats."""
    size = pc.abs(floats)
    whole = pc.and_(pc.equal(floats, pc.floor(floats)), pc.and_(pc.less(size, EXACT_IN_FLOAT), pc.greater(size, 1e9)))
    return pc.if_else(whole, whole_numbers(floats).cast(pa.string()), floats.cast(pa.string()))
