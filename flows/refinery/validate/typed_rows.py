"""Create and convert Arrow record batches of rows in the contract's types, with a column for row numbers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.refinery.read.columns import frame_of_arrays
from flows.refinery.read.header import GOOD_ROW_NUMBER
from flows.refinery.validate.coercion import ARROW_TYPES, dtype_of, judged_values
from flows.refinery.validate.column_text import pandas_values

_IN_UTC = pd.DatetimeTZDtype("us", "UTC")
ROW_NUMBER = GOOD_ROW_NUMBER  # the column with each row's number in the source file, which is never published


def to_batch(arrays: Sequence[pa.Array], row_numbers: np.ndarray, kinds: Mapping[str, str]) -> pa.RecordBatch:
    """Create a record batch from converted columns and their row numbers. `kinds` maps the name of each column to its
    type."""
    return pa.RecordBatch.from_arrays([*arrays, pa.array(row_numbers)], schema=_schema(kinds))


def beside(batch: pa.RecordBatch, more: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """Return a batch with columns added at the end. Their names may repeat the names of existing columns."""
    return pa.RecordBatch.from_arrays([*batch.columns, *more.values()], names=[*batch.schema.names, *more])


def no_rows(kinds: Mapping[str, str]) -> pa.RecordBatch:
    """Return a batch without rows. It has the columns in `kinds`, which maps their names to types, and a column for row
    numbers."""
    return pa.RecordBatch.from_pylist([], schema=_schema(kinds))


def _schema(kinds: Mapping[str, str]) -> pa.Schema:
    fields = [pa.field(name, ARROW_TYPES[kind]) for name, kind in kinds.items()]
    return pa.schema([*fields, pa.field(ROW_NUMBER, pa.int64())])


def numbers_of(batch: pa.RecordBatch) -> np.ndarray:
    numbers: np.ndarray = batch.column(ROW_NUMBER).to_numpy()
    return numbers


def as_judged(data: pa.RecordBatch | pa.Table, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Convert rows to the frame that GX checks. It has a RangeIndex, timestamps in UTC without a time zone, and times
    as strings."""
    columns = {name: judged_values(data.column(name), kind) for name, kind in kinds.items()}
    return frame_of_arrays(columns, pd.RangeIndex(len(data)))


def as_stepped(batch: pa.RecordBatch, kinds: Mapping[str, str], nullable: Collection[str]) -> pd.DataFrame:
    """Convert good rows to the frame that preprocessing steps get. Its index is the row numbers, timestamps are in UTC,
    and dates are timestamps at midnight.

    Args:
        nullable: the columns that may have missing values. They get a nullable dtype even if no value is missing in
            this batch.
    """
    columns = {name: _stepped(batch.column(name), kind, nulls=name in nullable) for name, kind in kinds.items()}
    return pd.DataFrame(columns, index=pd.Index(numbers_of(batch)), copy=False)


def _stepped(array: pa.Array, kind: str, *, nulls: bool) -> Any:
    if kind == "timestamp":
        return _IN_UTC.__from_arrow__(array)
    if kind in ("integer", "boolean"):
        return pandas_values(array, dtype_of(kind, nulls=nulls))
    return judged_values(array, kind)
