"""Mergeable states of metrics. Each partition gives a state for each metric, and the merged states give the metric of
the whole file."""

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

DISTINCT_LIMIT = 1_000_000  # values, which take about 100 MB if they are strings

Metric = Callable[[str], Any]
Domain = Callable[[], pd.Series]
"""A function that returns the values of a rule's column that are not missing."""


class TooManyDistinctValues(FileRejected):
    """An expectation needs the distinct values of a column, but there are more than Sluice keeps in memory."""


@dataclass(frozen=True)
class Counts:
    """The row counts of an expectation that checks each row."""

    rows: int  # rows that its row_condition selects
    evaluated: int  # of these, rows that are not skipped because a value is missing
    failing: int  # of the evaluated rows, those that fail

    def merge(self, later: Self) -> Self:
        rows, evaluated = self.rows + later.rows, self.evaluated + later.evaluated
        return replace(self, rows=rows, evaluated=evaluated, failing=self.failing + later.failing)


@dataclass(frozen=True)
class InOrder:
    """The state of a column that should increase or decrease, for some consecutive rows."""

    counts: Counts
    in_order: Callable[[Any, Any], bool]  # whether two consecutive values are in the right order
    first: Any = None  # the first and last value; None if there are no values
    last: Any = None
    first_row: int | None = None  # the row number of `first`
    broken_rows: tuple[int, ...] = ()  # the numbers of rows that fail because of the last value in the partition before

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
    """The sum, minimum or maximum of the values that a metric has in all partitions. The function `fold` combines these
    values. The result is None if no partition has a value."""

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
    """An exact sum, mean or standard deviation, which is identical to the last bit however the file is cut into
    partitions. GX's own metrics could be merged only approximately, and they check in Python whether each value is a
    Decimal."""

    moments: ExactMoments
    wanted: str

    @classmethod
    def of(cls, values: pd.Series, wanted: str) -> Moments:
        if not pd.api.types.is_numeric_dtype(values.dtype):
            raise TypeError("the column does not hold numbers")
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
    """A proportion of the rows, stored as two row counts."""

    part: int
    whole: int

    def merge(self, later: Self) -> Self:
        return replace(self, part=self.part + later.part, whole=self.whole + later.whole)

    def metric(self) -> float:
        return self.part / self.whole if self.whole else 0


@dataclass(frozen=True, eq=False)
class DistinctCount:
    """The number or proportion of distinct values, which are counted by their 64-bit hashes. If two of them have the
    same hash, the count is too low by one. For a million values, the probability of that is 3 in 100 million."""

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
    """The number of times that each value occurs. Raises TooManyDistinctValues if there are more than DISTINCT_LIMIT
    distinct values."""

    counts: pd.Series

    @classmethod
    def of(cls, values: pd.Series) -> ValueCounts:
        return cls(values.value_counts(sort=False))._within_limit()

    def merge(self, later: Self) -> Self:
        merged = pd.concat([self.counts, later.counts])
        return replace(self, counts=merged.groupby(level=0, sort=False).sum())._within_limit()

    def metric(self) -> list[Any]:
        """Return the most common values, in the order in which pandas' `mode` returns them."""
        return list(self.counts[self.counts == self.counts.max()].sort_index().index)

    def distinct_values(self) -> pd.Series:
        return self.counts.index.to_series().reset_index(drop=True)

    def _within_limit(self) -> Self:
        if len(self.counts) > DISTINCT_LIMIT:
            raise TooManyDistinctValues(
                f"the column {self.counts.index.name!r} holds more than {DISTINCT_LIMIT:,} different values;"
                " expectations about its distinct or most common values cannot be checked on this file"
            )
        return self


def hashes_of(keys: pd.DataFrame) -> np.ndarray:
    """Return a 64-bit hash for each row. Equal rows have equal hashes in all partitions and processes."""
    if len(keys.columns) == 1 and isinstance(keys.dtypes.iloc[0], pd.StringDtype):
        return text_hashes(text_array(keys.iloc[:, 0]))
    plain = {name: _hashable(keys[name]) for name in keys.columns}
    hashed: np.ndarray = pd.util.hash_pandas_object(pd.DataFrame(plain), index=False).to_numpy()
    return hashed


def _hashable(column: pd.Series) -> pd.Series:
    """Give equal values in a column the same bits. The values 0.0 and -0.0 are equal, but have different bits."""
    return column + 0.0 if pd.api.types.is_float_dtype(column.dtype) else column


# For each metric of the whole file: the metrics that GX computes on each partition, and a function that creates a
# partition's state from them.
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
