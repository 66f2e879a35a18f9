"""Mergeable states: what a partition keeps so that the merged states give the metric of the whole file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from flows.refinery.errors import FileRejected
from flows.refinery.validate.column_text import text_array
from flows.refinery.validate.exact_sums import ExactMoments
from flows.refinery.validate.text_hashes import text_hashes

DISTINCT_LIMIT = 1_000_000  # values; about 100 MB of text

Metric = Callable[[str], Any]
Domain = Callable[[], pd.Series]
"""Returns the values of the column that are there."""


class TooManyDistinctValues(FileRejected):
    """An expectation about a column's distinct values met more of them than are kept in memory."""


@dataclass(frozen=True)
class Counts:
    """Rows of a row-level expectation."""

    rows: int  # rows that its row_condition leaves
    evaluated: int  # those of them that are not passed over as missing
    failing: int  # those of them that fail

    def merge(self, later: Self) -> Self:
        rows, evaluated = self.rows + later.rows, self.evaluated + later.evaluated
        return replace(self, rows=rows, evaluated=evaluated, failing=self.failing + later.failing)


@dataclass(frozen=True)
class InOrder:
    """A stretch of an increasing or decreasing column: its own counts, its ends, and the seams that broke the order."""

    counts: Counts
    in_order: Callable[[Any, Any], bool]
    first: Any = None  # the stretch's first and last value; None in a stretch without values
    last: Any = None
    first_row: int | None = None  # the row number of `first`
    broken_rows: tuple[int, ...] = ()  # row numbers that fail because of the value at the end of the stretch before

    def merge(self, later: Self) -> Self:
        counts = self.counts.merge(later.counts)
        broken = self.broken_rows + later.broken_rows
        if self.first_row is None or later.first_row is None:
            ends = later if self.first_row is None else self
            return replace(ends, counts=counts, broken_rows=broken)
        if not self.in_order(self.last, later.first):
            broken = (*broken, later.first_row)
            counts = replace(counts, failing=counts.failing + 1)
        return replace(self, counts=counts, last=later.last, broken_rows=broken)


@dataclass(frozen=True)
class Folded:
    """A total (sum), or the least or greatest value (min, max); None where there was none."""

    value: Any
    fold: Callable[..., Any]

    @classmethod
    def of(cls, value: Any, fold: Callable[..., Any]) -> Folded:
        return cls(None if pd.isna(value) else value, fold)

    def merge(self, later: Self) -> Self:
        values = [value for value in (self.value, later.value) if value is not None]
        return replace(self, value=self.fold(values) if values else None)

    def metric(self) -> Any:
        return self.value


@dataclass(frozen=True)
class Moments:
    """Sum, mean and standard deviation, exact: the same to the last bit however the file is cut into partitions. GX's
    own metrics for them would first look at each value in Python for decimals, and could be merged only roughly."""

    moments: ExactMoments
    wanted: str

    @classmethod
    def of(cls, values: pd.Series, wanted: str) -> Moments:
        if not pd.api.types.is_numeric_dtype(values.dtype):
            raise TypeError("the column holds no numbers")
        moments = ExactMoments(deviation=wanted == "standard deviation")
        moments.add(values.to_numpy(dtype="float64"))
        return cls(moments, wanted)

    def merge(self, later: Self) -> Self:
        self.moments.merge(later.moments)
        return self

    def metric(self) -> float:
        if self.wanted == "sum":
            return self.moments.total
        if self.wanted == "mean":
            return self.moments.mean if self.moments.count else math.nan
        return self.moments.sample_deviation


@dataclass(frozen=True)
class Proportion:
    """A part of the rows."""

    part: int
    whole: int

    def merge(self, later: Self) -> Self:
        return replace(self, part=self.part + later.part, whole=self.whole + later.whole)

    def metric(self) -> float:
        return self.part / self.whole if self.whole else 0


@dataclass(frozen=True, eq=False)
class DistinctCount:
    """How many different values there are, counted by their 64-bit hashes. Two of a million values meet in a hash with
    a probability of 3 in 100 million; the count is then one too low."""

    hashes: np.ndarray
    values: int
    wanted: str

    @classmethod
    def of(cls, values: pd.Series, wanted: str) -> DistinctCount:
        return cls(np.unique(hashes_of(values.to_frame())), len(values), wanted)

    def merge(self, later: Self) -> Self:
        return replace(self, hashes=np.union1d(self.hashes, later.hashes), values=self.values + later.values)

    def metric(self) -> float:
        if self.wanted == "count":
            return len(self.hashes)
        return len(self.hashes) / self.values if self.values else 0


@dataclass(frozen=True, eq=False)
class ValueCounts:
    """How often each value occurs. Raise TooManyDistinctValues if there are more than DISTINCT_LIMIT."""

    counts: pd.Series

    @classmethod
    def of(cls, values: pd.Series) -> ValueCounts:
        return cls(values.value_counts(sort=False))._within_limit()

    def merge(self, later: Self) -> Self:
        merged = pd.concat([self.counts, later.counts])
        return replace(self, counts=merged.groupby(level=0, sort=False).sum())._within_limit()

    def metric(self) -> list[Any]:
        """Return the most common values, as pandas' mode gives them: sorted."""
        return list(self.counts[self.counts == self.counts.max()].sort_index().index)

    def distinct_values(self) -> pd.Series:
        """Return every value once."""
        return self.counts.index.to_series().reset_index(drop=True)

    def _within_limit(self) -> Self:
        if len(self.counts) > DISTINCT_LIMIT:
            raise TooManyDistinctValues(
                f"the column {self.counts.index.name!r} holds more than {DISTINCT_LIMIT:,} different values;"
                " expectations about its distinct or most common values cannot be judged on this file"
            )
        return self


def hashes_of(keys: pd.DataFrame) -> np.ndarray:
    """Return one 64-bit hash per row; equal rows have equal hashes, in every partition and every process."""
    if len(keys.columns) == 1 and isinstance(keys.dtypes.iloc[0], pd.StringDtype):
        return text_hashes(text_array(keys.iloc[:, 0]))
    plain = {name: _hashable(keys[name]) for name in keys.columns}
    hashed: np.ndarray = pd.util.hash_pandas_object(pd.DataFrame(plain), index=False).to_numpy()
    return hashed


def _hashable(column: pd.Series) -> pd.Series:
    """Return the column so that equal values have one form: 0.0 and -0.0 are equal, their bits are not."""
    return column + 0.0 if pd.api.types.is_float_dtype(column.dtype) else column


# What GX needs per partition for each metric that is merged, and how the state is made of it.
AGGREGATES: dict[str, tuple[tuple[str, ...], Callable[[Metric, Domain], Any]]] = {
    "table.row_count": (("table.row_count",), lambda metric, _: Folded.of(metric("table.row_count"), sum)),
    "column.sum": ((), lambda _, domain: Moments.of(domain(), "sum")),
    "column.max": (("column.max",), lambda metric, _: Folded.of(metric("column.max"), max)),
    "column.min": (("column.min",), lambda metric, _: Folded.of(metric("column.min"), min)),
    "column.mean": ((), lambda _, domain: Moments.of(domain(), "mean")),
    "column.standard_deviation": ((), lambda _, domain: Moments.of(domain(), "standard deviation")),
    "column.non_null_proportion": (
        ("column.non_null_count", "table.row_count"),
        lambda metric, _: Proportion(int(metric("column.non_null_count")), int(metric("table.row_count"))),
    ),
    "column.distinct_values.count": ((), lambda _, domain: DistinctCount.of(domain(), "count")),
    "column.unique_proportion": ((), lambda _, domain: DistinctCount.of(domain(), "proportion")),
    "column.most_common_value": ((), lambda _, domain: ValueCounts.of(domain())),
}
