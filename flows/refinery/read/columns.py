"""Convert Python values from typed formats (JSON, XLSX) to DataFrame columns that represent them exactly."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.refinery.contract.model import Contract
from flows.refinery.read.partition import Limits, Misfit, Partition, SourceFormat
from flows.refinery.read.rejections import TooManyRows
from flows.refinery.words import EXACT_FLOAT

_TEXT: Any = pd.StringDtype(na_value=np.nan)
# Columns that a contract declares with these types are kept as text, because numbers would lose leading zeros.
TEXT_TYPES = frozenset({"string", "timestamp", "date", "time", "json"})


class RowBuffer:
    """Collects the rows of a format that is read row by row, until there are enough for a partition.

    Attributes:
        rows: the decoded rows, in the form that the reader uses.
        total: the number of rows so far, including misfits and the rows of earlier partitions.
    """

    def __init__(self, contract: Contract, limits: Limits, source_format: SourceFormat) -> None:
        self._contract, self._limits, self._source_format = contract, limits, source_format
        self.rows: list[Any] = []
        self._row_numbers: list[int] = []
        self._misfits: list[Misfit] = []
        self.total = 0

    def __len__(self) -> int:
        return len(self.rows) + len(self._misfits)

    def add(self, row: Any) -> None:
        self._count()
        self.rows.append(row)
        self._row_numbers.append(self.total)

    def add_misfit(self, reason: str, text: str, line: int | None = None) -> None:
        self._count()
        self._misfits.append(Misfit.of(self.total, reason, text, line))

    def take(self, columns: dict[str, list[Any]]) -> Partition:
        """Return the collected rows as a partition, and start a new one. `columns` maps each column to its
        values."""
        numbers = np.array(self._row_numbers, dtype=np.int64)
        partition = Partition(frame_of(columns, self._contract), numbers, self._misfits, self._source_format)
        self.rows, self._row_numbers, self._misfits = [], [], []
        return partition

    def _count(self) -> None:
        self.total += 1
        if self.total > self._limits.max_rows:
            raise TooManyRows(f"the file has more than {self._limits.max_rows} rows")


def frame_of_arrays(columns: Mapping[str, Any], index: pd.Index | None = None) -> pd.DataFrame:
    """Make a DataFrame from the values of its columns, without a copy. The column names are converted only once for all
    frames with the same names, which takes a third of the time for a small frame, and so do look-ups of columns."""
    frame = pd.DataFrame(dict(enumerate(columns.values())), index=index, copy=False)
    frame.columns = _column_names(tuple(columns))
    return frame


@lru_cache(maxsize=16)
def _column_names(names: tuple[str, ...]) -> pd.Index:
    return pd.Index(names)


def text_values(texts: pa.Array | pa.ChunkedArray) -> Any:
    """Convert an Arrow array of strings to the values of a DataFrame column, without a copy."""
    return _TEXT.__from_arrow__(texts)


def missing_texts(contract: Contract, name: str) -> tuple[str, ...]:
    """Return the strings that mean a missing value in a column: those of the column in the contract, or else those of
    the format."""
    column = contract.columns.get(name)
    own = column.missing_values if column is not None else None
    return contract.format.missing_values if own is None else own


def missing_unless_text(contract: Contract) -> tuple[str, ...]:
    """Return the strings that mean a missing value in an undeclared column whose other values are not text."""
    return (*contract.format.missing_values, *contract.format.missing_unless_text)


def frame_of(columns: dict[str, list[Any]], contract: Contract) -> pd.DataFrame:
    """Make a DataFrame from lists of equal length, in which None is a missing value. A column gets the dtype of its
    values if that can hold all of them exactly, and otherwise dtype object. Dictionaries and lists become JSON text."""
    return pd.DataFrame(
        {name: series_of(values, frozenset(missing_texts(contract, name))) for name, values in columns.items()}
    )


def series_of(values: Sequence[Any], missing: Collection[str]) -> pd.Series[Any]:
    """Make one column, as `frame_of` does. The strings in `missing` mean a missing value."""
    kinds = set(map(type, values))
    if dict in kinds or list in kinds:
        values = [_as_json(value) for value in values]
        kinds = set(map(type, values))
    if missing and str in kinds:
        values = [None if isinstance(value, str) and value in missing else value for value in values]
        kinds = set(map(type, values))
    some_missing = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {str}:
        return pd.Series(list(values), dtype="str")
    if kinds == {bool} and not some_missing:
        return pd.Series(np.array(values, dtype=bool))
    if kinds and kinds <= {int, float}:
        return _numbers(values, kinds, some_missing)
    if kinds == {dt.datetime}:
        return _timestamps(values)
    if not kinds:
        return pd.Series(np.full(len(values), np.nan))
    return pd.Series(list(values), dtype=object)


def _numbers(values: Sequence[Any], kinds: set[type], some_missing: bool) -> pd.Series[Any]:
    exact = pd.Series(list(values), dtype=object)
    if kinds == {int} and not some_missing:
        try:
            return pd.Series(np.array(values, dtype=np.int64))
        except OverflowError:
            return exact
    if any(type(value) is int and abs(value) >= EXACT_FLOAT for value in values):
        return exact
    return pd.Series(np.array([np.nan if value is None else value for value in values], dtype=np.float64))


def _timestamps(values: Sequence[Any]) -> pd.Series[Any]:
    exact = pd.Series(list(values), dtype=object)
    try:
        return pd.Series(pd.to_datetime(exact))
    except (ValueError, TypeError, OverflowError):
        return exact


def _as_json(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
