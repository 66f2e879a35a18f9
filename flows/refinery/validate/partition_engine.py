"""A pandas engine for GX that works on one partition. It selects rows and columns only once, even if several metrics
read them.

GX's own engine filters the frame again for each metric. The comparisons are still GX's code: the metrics that this
module adds to GX's registry only pass the selected columns to them.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.validate.gx import gx
from flows.refinery.validate.rules import METHODS


def partition_engine() -> Any:
    """Return a new engine. For each partition, call the engine's `begin` before it computes metrics, and `end`
    afterwards."""
    return _engine_class()()


@functools.cache
def _engine_class() -> type:
    engine = type("PartitionEngine", (_OfOnePartition, gx().PandasExecutionEngine), {})
    _register(engine)
    return engine


class _OfOnePartition:
    """The methods that differ from those of GX's pandas engine. The engine's class inherits from this class and from
    GX's."""

    batch_manager: Any
    load_batch_data: Any
    metrics_on_columns: frozenset[str]  # the metrics that `_register_on_column` registered

    def __init__(self) -> None:
        super().__init__(caching=False)  # type: ignore[call-arg] # GX's
        self.end()

    def begin(self, frame: pd.DataFrame, columns: Mapping[str, Sequence[str]]) -> None:
        """Load a partition. `columns` maps the name of a batch to its columns; other batches have all columns."""
        self.frame, self._columns = frame, columns

    def end(self) -> None:
        """Release the partition and everything that was selected from it."""
        self.begin(pd.DataFrame(), {})
        self._kept: dict[str, Any] = {}
        self.batch_manager.batch_data_cache.clear()

    def drop_unused_dependencies(self, metric: Any) -> None:
        """Drop what GX computes for a metric only to look up its column, if the metric gets the column from here."""
        if metric.metric_name in self.metrics_on_columns:
            needed = metric.metric_dependencies.items()
            metric.metric_dependencies = {name: one for name, one in needed if not name.startswith("table.")}

    def columns_of(self, batch: str) -> list[str]:
        return list(self._columns.get(batch, self.frame.columns))

    def column(self, domain_kwargs: Mapping[str, Any], *, with_missing: bool) -> Any:
        """Return the column of a domain (GX's word for selected rows), with or without its missing values."""
        key = f"{with_missing} {domain_kwargs}"
        if key not in self._kept:
            is_entire = not domain_kwargs.get("row_condition")
            values = (self.frame if is_entire else self.get_domain_records(domain_kwargs))[domain_kwargs["column"]]
            self._kept[key] = values if with_missing else _present(values)
        return self._kept[key]

    def get_domain_records(self, domain_kwargs: Mapping[str, Any]) -> Any:
        """Return the rows of a domain. GX selects them only in the first call for the domain."""
        key, batch = str(domain_kwargs), domain_kwargs["batch_id"]
        if domain_kwargs.get("ignore_row_if") == "either_value_is_missing" and not domain_kwargs.get("row_condition"):
            if key not in self._kept:
                names = domain_kwargs["column_A"], domain_kwargs["column_B"]
                self._kept[key] = _present_pairs(pd.DataFrame({name: self.frame[name] for name in names}, copy=False))
            return self._kept[key]
        if batch not in self.batch_manager.batch_data_cache:
            columns = {name: self.frame[name] for name in self.columns_of(batch)}
            self.load_batch_data(batch, pd.DataFrame(columns, index=self.frame.index, copy=False))
        if key not in self._kept:
            self._kept[key] = super().get_domain_records(domain_kwargs)  # type: ignore[misc] # GX's
        return self._kept[key]


def _present(values: Any) -> Any:
    """Return the values of a column that are not missing, with their index. This is faster than selecting them with
    pandas."""
    present = ~values.array.isna()
    if present.all():
        return values
    places = np.flatnonzero(present)
    return pd.Series(values.array.take(places), index=values.index.take(places), name=values.name, copy=False)


def _present_pairs(pairs: Any) -> Any:
    """Return the rows of two columns in which neither value is missing. This is faster than with pandas' `dropna`."""
    present = ~np.logical_or.reduce([values.array.isna() for _, values in pairs.items()])
    return pairs if present.all() else pairs.take(np.flatnonzero(present))


def _register(engine: type) -> None:
    """Register with GX the metrics that this engine computes in a different way: the names and types of columns, the
    number of rows, and the conditions on single columns."""

    class ColumnNames(gx().TableMetricProvider):  # type: ignore[misc] # as above
        metric_name = "table.columns"

        @gx().metric_value(engine=engine)  # type: ignore[untyped-decorator] # as above
        def _pandas(cls, execution_engine: Any, metric_domain_kwargs: Mapping[str, Any], **_: Any) -> list[str]:  # noqa: N805 GX makes it a class method
            names: list[str] = execution_engine.columns_of(metric_domain_kwargs["batch_id"])
            return names

    class ColumnTypes(gx().TableMetricProvider):  # type: ignore[misc] # as above
        metric_name = "table.column_types"
        value_keys = ("include_nested",)

        @gx().metric_value(engine=engine)  # type: ignore[untyped-decorator] # as above
        def _pandas(cls, execution_engine: Any, metric_domain_kwargs: Mapping[str, Any], **_: Any) -> list[Any]:  # noqa: N805 as above
            names = execution_engine.columns_of(metric_domain_kwargs["batch_id"])
            return [{"name": name, "type": execution_engine.frame[name].dtype} for name in names]

    class RowCount(gx().TableMetricProvider):  # type: ignore[misc] # as above
        metric_name = "table.row_count"

        @gx().metric_value(engine=engine)  # type: ignore[untyped-decorator] # as above
        def _pandas(cls, execution_engine: Any, metric_domain_kwargs: Mapping[str, Any], **_: Any) -> int:  # noqa: N805 as above
            is_entire = not metric_domain_kwargs.get("row_condition")
            return len(
                execution_engine.frame if is_entire else execution_engine.get_domain_records(metric_domain_kwargs)
            )

    one_by_one = inspect.unwrap(gx().ColumnValuesBetween._pandas)

    class ColumnValuesBetweenVectorized(gx().ColumnValuesBetween):  # type: ignore[misc] # as above
        @gx().column_condition_partial(engine=engine)  # type: ignore[untyped-decorator] # as above
        def _pandas(cls, column: pd.Series, **kwargs: Any) -> Any:  # noqa: N805 as above
            """Compare a column with bounds in one operation where possible. GX does that for NumPy integers, floats and
            nanosecond timestamps, and compares all other types value by value."""
            if column.dtype == "Int64":
                column = column.astype("int64")  # the column has no missing values here
            elif pd.api.types.is_datetime64_dtype(column.dtype):
                column = column.astype("datetime64[us]")
                bounds = {name: kwargs.get(name) for name in ("min_value", "max_value", "strict_min", "strict_max")}
                return cls._pandas_vectorized(column, **bounds)
            return one_by_one(cls, column, **kwargs)

    metrics = {getattr(gx().get_expectation_impl(name), "map_metric", None) for name in METHODS} - {None}
    names = [*sorted(f"{metric}.condition" for metric in metrics), "column_values.value_length.map"]
    engine.metrics_on_columns = frozenset(name for name in names if _register_on_column(name, engine))  # type: ignore[attr-defined] # the base class has it


def _register_on_column(name: str, engine: type) -> bool:
    """Register a condition or a function on a single column, so that it gets the column from the engine. Otherwise GX
    would filter and copy the frame for it. Return False if it is not on a single column."""
    provider, metric = gx().get_metric_provider(name, engine())
    if metric.domain_type.value != "column":
        return False
    compute, is_condition = inspect.unwrap(metric), name.endswith(".condition")

    def on_column(
        cls: Any,
        execution_engine: Any,
        metric_domain_kwargs: Mapping[str, Any],
        metric_value_kwargs: Mapping[str, Any],
        metrics: Mapping[str, Any],
        **_: Any,
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        column = execution_engine.column(metric_domain_kwargs, with_missing=not cls.filter_column_isnull)
        rest = dict(metric_domain_kwargs)
        accessor = {"column": rest.pop("column")}
        values = compute(cls, column, **metric_value_kwargs, _metrics=metrics)
        return ~values if is_condition else values, rest, accessor

    gx().register_metric(
        metric_name=name,
        metric_domain_keys=provider.condition_domain_keys if is_condition else provider.function_domain_keys,
        metric_value_keys=provider.condition_value_keys if is_condition else provider.function_value_keys,
        execution_engine=engine,
        metric_class=provider,
        metric_provider=on_column,
        metric_fn_type=metric.metric_fn_type,
    )
    return True
