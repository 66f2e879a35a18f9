"""Mergeable states: each partition gives one per metric, and the merged states give the metric of the whole file."""

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
    """An expectation needs a column's distinct values, and there are more than are kept in memory."""


@dataclass(frozen=True)
class Counts:
    """The row counts of a row-level expectation."""

    rows: int  # rows that its row_condition selects
    evaluated: int  # of these, rows that are not skipped because a value is missing
    failing: int  # of the evaluated rows, those that fail

    def merge(self, later: Self) -> Self:
        rows, evaluated = self.rows + later.rows, self.evaluated + later.evaluated
        return replace(self, rows=rows, evaluated=evaluated, failing=self.failing + later.failing)


@dataclass(frozen=True)
class InOrder:
    """Consecutive rows of a column that should increase or decrease: their counts, their first and last values, and the
    rows that fail because of the last value of the partition before."""

    counts: Counts
    in_order: Callable[[Any, Any], bool]
    first: Any = None  # the first and last value; None if there are no values
    last: Any = None
    first_row: int | None = None  # the row number of `first`
    broken_rows: tuple[int, ...] = ()  # row numbers that fail because of the last value before a merge

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
    """The sum, minimum or maximum of a metric over partitions, by the function `fold`; None if no partition had one."""

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
    """Exact sum, mean and standard deviation: identical to the last bit, however the file is cut into partitions. GX's
    own metrics would check each value in Python for decimals, and could be merged only approximately."""

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
    """A proportion of the rows."""

    part: int
    whole: int

    def merge(self, later: Self) -> Self:
        return replace(self, part=self.part + later.part, whole=self.whole + later.whole)

    def metric(self) -> float:
        return self.part / self.whole if self.whole else 0


@dataclass(frozen=True, eq=False)
class DistinctCount:
    """The number of distinct values, counted by their 64-bit hashes. Among a million values, the probability that two
    have the same hash is 3 in 100 million; the count is then one too low."""

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
        """Return the most common values, sorted as by pandas' `mode`."""
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
    """Return the column with the same bits for equal values: 0.0 and -0.0 are equal, but have different bits."""
    return column + 0.0 if pd.api.types.is_float_dtype(column.dtype) else column


# By metric of the whole file: the metrics that GX computes per partition, and the function that makes a state of them.
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
