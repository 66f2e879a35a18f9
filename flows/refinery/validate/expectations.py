"""Great Expectations as the judge of a file that is read in partitions.

Per partition GX's own metric graph gives each map expectation's mask and each aggregate's metric. Masks say which row
breaks which rule; metrics become mergeable states. At the end the merged values go back into GX's own
`metrics_validate`, so success and observed values are GX's.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.errors import FileRejected
from flows.refinery.validate.aggregates import AGGREGATES, Counts, InOrder, ValueCounts, hashes_of
from flows.refinery.validate.gx import gx
from flows.refinery.validate.rules import Method, Rule

_BATCH = "rows"
_RUNTIME = {"catch_exceptions": False, "result_format": {"result_format": "BASIC", "partial_unexpected_count": 0}}


class ExpectationRaised(FileRejected):
    """Great Expectations raised an error instead of giving a verdict: the expectation cannot judge such values."""

    def __init__(self, message: str, cause_type: type[BaseException] | None = None) -> None:
        super().__init__(message)
        self.cause_type = cause_type


@dataclass(frozen=True)
class Verdict:
    """GX's verdict on one rule over the whole file.

    Attributes:
        success: whether the expectation is met, with its `mostly`.
        result: GX's own result: observed_value, element_count, unexpected_count, ...
        rows_evaluated, rows_failing: of a row-level expectation.
    """

    rule: Rule
    success: bool
    result: dict[str, Any]
    rows_evaluated: int | None = None
    rows_failing: int | None = None


@dataclass(frozen=True)
class RuleFinding:
    """What one rule found in one partition.

    Attributes:
        failing: the positions of the failing rows; None where the rule does not mark rows by itself.
        state: what is merged with the other partitions' states; None where the rule needs nothing of this partition.
        key_hashes: of a uniqueness rule, the hashes of the keys, one per row that is compared.
    """

    failing: np.ndarray | None = None
    state: Any = None
    key_hashes: np.ndarray | None = None


def merge_states(earlier: Sequence[Any], later: Sequence[Any]) -> tuple[Any, ...]:
    """Return the states of two stretches of a file, of which `later` follows `earlier`."""
    return tuple(
        after if before is None else before if after is None else before.merge(after)
        for before, after in zip(earlier, later, strict=True)
    )


class Judge:
    """Judges partitions by a list of rules. Holds one GX engine; not for several threads at once."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        _register_metrics()
        self._engine = gx().PandasExecutionEngine()
        self._expectations = [_domain_object(rule) for rule in self.rules]
        self._graph: Any = None
        self._wanted: dict[tuple[int, str], Any] = {}
        self._domains: dict[int, Any] = {}

    def judge(self, frame: pd.DataFrame, row_numbers: np.ndarray) -> tuple[RuleFinding, ...]:
        """Return what every rule finds in one partition.

        Args:
            frame: the partition's coerced columns, with a RangeIndex.
            row_numbers: int64, one per row of the frame: the row's number in the file.

        Raises:
            ExpectationRaised: with the expectation and its columns.
        """
        self._engine.load_batch_data(_BATCH, frame)
        metrics = self._resolve_partition()
        findings = []
        for rule, expectation in zip(self.rules, self._expectations, strict=True):
            with _raises_named(rule):
                findings.append(self._finding(rule, expectation, metrics, row_numbers))
        return tuple(findings)

    def verdict(self, position: int, state: Any, structure: pd.DataFrame) -> Verdict:
        """GX's verdict on one rule from the merged state of all partitions.

        Args:
            structure: an empty frame with the file's columns in their order and types.
        """
        rule, expectation = self.rules[position], self._expectations[position]
        with _raises_named(rule):
            if rule.method is Method.STRUCTURE:
                return _verdict(rule, self._validate(expectation, structure))
            if rule.method is Method.DISTINCT:
                return _verdict(rule, self._validate_distinct(rule, state))
            self._engine.load_batch_data(_BATCH, structure)
            if isinstance(state, Counts | InOrder):
                counts = state if isinstance(state, Counts) else state.counts
                return self._verdict_on_counts(rule, expectation, counts)
            result = self._inject(expectation, {expectation.metric_dependencies[0]: state.metric()})
            return _verdict(rule, result)

    def judge_entire(self, position: int, frame: pd.DataFrame) -> tuple[Verdict, np.ndarray]:
        """Judge a rule on all rows at once, for what cannot be merged.

        Returns:
            the verdict, and the positions of the failing rows (none for a table-level expectation).
        """
        rule, expectation = self.rules[position], self._expectations[position]
        nothing = np.empty(0, dtype=np.int64)
        with _raises_named(rule):
            if rule.level == "table":
                return _verdict(rule, self._validate(expectation, frame)), nothing
            self._engine.load_batch_data(_BATCH, frame)
            names = (f"{expectation.map_metric}.condition", *_count_metrics(expectation))
            wanted = {name: _metric(expectation, name) for name in names}
            metrics = self._resolve(self._build(list(wanted.values())))
            failing = _failing_rows(metrics[wanted[names[0]].id])
            counts = _counts(expectation, lambda name: metrics[wanted[name].id], len(failing))
            return self._verdict_on_counts(rule, expectation, counts), failing

    def key_rows(self, position: int, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows and key columns of `frame` that a uniqueness rule compares; the index is the position."""
        self._engine.load_batch_data(_BATCH, frame)
        return self._keys(self.rules[position], self._expectations[position])

    # --- one partition ----------------------------------------------------------------------------------------

    def _resolve_partition(self) -> Callable[[Any, str], Any]:
        """Resolve all rules' metrics on the loaded partition; gives a look-up by expectation and metric name."""
        if self._graph is None:
            self._wanted = {
                (id(expectation), name): _metric(expectation, name)
                for rule, expectation in zip(self.rules, self._expectations, strict=True)
                for name in _partition_metrics(rule, expectation)
            }
            self._graph = self._build(list(self._wanted.values()))
        resolved = self._resolve(self._graph)
        return lambda expectation, name: resolved[self._wanted[id(expectation), name].id]

    def _finding(
        self, rule: Rule, expectation: Any, metrics: Callable[[Any, str], Any], row_numbers: np.ndarray
    ) -> RuleFinding:
        metric = functools.partial(metrics, expectation)
        values: Callable[[], pd.Series] = lambda: self._domain(expectation)[rule.columns[0]]  # noqa: E731
        if rule.method in (Method.ROWS, Method.ORDER):
            failing = _failing_rows(metric(f"{expectation.map_metric}.condition"))
            counts = _counts(expectation, metric, len(failing))
            in_order = rule.method is Method.ORDER
            return RuleFinding(failing, self._in_order(rule, expectation, counts, row_numbers) if in_order else counts)
        if rule.method is Method.UNIQUE:
            keys = self._keys(rule, expectation)
            counts = Counts(int(metric("table.row_count")), len(keys), 0)
            return RuleFinding(state=counts, key_hashes=hashes_of(keys))
        if rule.method is Method.MERGED:
            _, state_of = AGGREGATES[expectation.metric_dependencies[0]]
            return RuleFinding(state=state_of(metric, values))
        if rule.method is Method.DISTINCT:
            return RuleFinding(state=ValueCounts.of(values()))
        return RuleFinding()

    def _in_order(self, rule: Rule, expectation: Any, counts: Counts, row_numbers: np.ndarray) -> InOrder:
        values = self._domain(expectation)[rule.columns[0]].dropna()
        in_order = functools.partial(
            _is_in_order,
            rising="increasing" in rule.name,
            strictly=bool(rule.arguments.get("strictly")),
        )
        if values.empty:
            return InOrder(counts, in_order)
        return InOrder(counts, in_order, values.iloc[0], values.iloc[-1], int(row_numbers[values.index[0]]))

    def _keys(self, rule: Rule, expectation: Any) -> pd.DataFrame:
        """Return the rows of the loaded partition that a uniqueness rule compares, and their key columns."""
        keys = self._domain(expectation)[list(rule.columns)]
        return keys.dropna() if "column" in rule.arguments else keys

    def _domain(self, expectation: Any) -> pd.DataFrame:
        """Return the rows of the loaded partition that row_condition and ignore_row_if leave."""
        domain_kwargs = self._domains.get(id(expectation))
        if domain_kwargs is None:
            map_metric = getattr(expectation, "map_metric", None)
            name = f"{map_metric}.condition" if map_metric else "column.max"
            domain_kwargs = self._domains[id(expectation)] = _metric(expectation, name).metric_domain_kwargs
        rows: pd.DataFrame = self._engine.get_domain_records(domain_kwargs=domain_kwargs)
        return rows

    # --- GX's graph ---------------------------------------------------------------------------------------------

    def _build(self, configurations: list[Any]) -> Any:
        calculator = gx().MetricsCalculator(self._engine)
        return calculator.build_metric_dependency_graph(configurations, dict(_RUNTIME))

    def _resolve(self, graph: Any) -> Mapping[Any, Any]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                calculator = gx().MetricsCalculator(self._engine)
                resolved, _ = calculator.resolve_validation_graph(graph, dict(_RUNTIME))
        except gx().MetricResolutionError as error:
            self._blame(error)
        metrics: Mapping[Any, Any] = resolved
        return metrics

    def _blame(self, error: Any) -> NoReturn:
        """Find the rule that a metric belongs to, and raise in its name."""
        failed = {metric.id for metric in error.failed_metrics}
        for rule, expectation in zip(self.rules, self._expectations, strict=True):
            for name in _partition_metrics(rule, expectation):
                graph = self._build([_metric(expectation, name)])
                if failed & {part.id for edge in graph.edges for part in (edge.left, edge.right) if part}:
                    _raise_named(rule, error)
        why, cause_type = _kind_of(error)
        raise ExpectationRaised(f"Great Expectations could not compute a metric: {why}", cause_type) from None

    def _validate(self, expectation: Any, frame: pd.DataFrame) -> Any:
        """Run one expectation on one frame as GX itself does."""
        self._engine.load_batch_data(_BATCH, frame)
        configurations = expectation.get_validation_dependencies(**self._run).get_metric_configurations()
        return expectation.metrics_validate(metrics=self._resolve(self._build(configurations)), **self._run)

    def _validate_distinct(self, rule: Rule, state: ValueCounts) -> Any:
        # The row_condition was applied in each partition; the union holds only what passed it.
        arguments = {k: v for k, v in rule.arguments.items() if k not in ("row_condition", "condition_parser")}
        expectation = _domain_object(rule, arguments)
        frame = pd.DataFrame({rule.columns[0]: state.distinct_values()})
        return self._validate(expectation, frame)

    def _verdict_on_counts(self, rule: Rule, expectation: Any, counts: Counts) -> Verdict:
        values = {
            "table.row_count": counts.rows,
            "column_values.nonnull.unexpected_count": counts.rows - counts.evaluated,
            f"{expectation.map_metric}.filtered_row_count": counts.evaluated,
            f"{expectation.map_metric}.unexpected_count": counts.failing,
            f"{expectation.map_metric}.unexpected_values": [],
        }
        result = self._inject(expectation, values)
        return _verdict(rule, result, rows_evaluated=counts.evaluated, rows_failing=counts.failing)

    def _inject(self, expectation: Any, values: Mapping[str, Any]) -> Any:
        """GX's verdict from metrics that were computed elsewhere."""
        dependencies = expectation.get_validation_dependencies(**self._run)
        metrics = {configuration.id: values[name] for name, configuration in dependencies.metric_configurations.items()}
        return expectation.metrics_validate(metrics=metrics, **self._run)

    @property
    def _run(self) -> dict[str, Any]:
        return {"execution_engine": self._engine, "runtime_configuration": dict(_RUNTIME)}


# --- metrics of an expectation ------------------------------------------------------------------------------------


def gx_expectation(name: str, arguments: Mapping[str, Any]) -> Any:
    """Make GX's expectation.

    Raises:
        ValueError: GX refuses the arguments.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # string row_conditions work until GX 2
        return gx().ExpectationConfiguration(type=name, kwargs=dict(arguments)).to_domain_obj()


def _domain_object(rule: Rule, arguments: Mapping[str, Any] | None = None) -> Any:
    try:
        return gx_expectation(rule.name, rule.arguments if arguments is None else arguments)
    except gx().ExpectationNotFoundError:
        raise ContractInvalid(f"{rule.id}: the installed Great Expectations does not have it") from None
    except ValueError as error:  # pydantic's ValidationError is one
        raise ContractInvalid(f"{rule.id}: Great Expectations refuses its arguments: {_faults(error)}") from None


def _faults(error: ValueError) -> str:
    """Pydantic's faults, one per argument; of a choice of types it reports each one's fault."""
    why: dict[str, str] = {}
    for fault in getattr(error, "errors", list)():
        why.setdefault(".".join(map(str, fault["loc"])), str(fault["msg"]))
    return "; ".join(f"{argument}: {message}" for argument, message in why.items()) or str(error)


def _metric(expectation: Any, name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        kwargs = gx().get_metric_kwargs(name, expectation.configuration, dict(_RUNTIME))
    return gx().MetricConfiguration(
        metric_name=name,
        metric_domain_kwargs=kwargs["metric_domain_kwargs"],
        metric_value_kwargs=kwargs["metric_value_kwargs"],
    )


def _partition_metrics(rule: Rule, expectation: Any) -> tuple[str, ...]:
    if rule.method in (Method.ROWS, Method.ORDER):
        return (f"{expectation.map_metric}.condition", *_count_metrics(expectation))
    if rule.method is Method.UNIQUE:
        return ("table.row_count",)
    if rule.method is Method.MERGED:
        needed, _ = AGGREGATES[expectation.metric_dependencies[0]]
        return needed
    return ()


def _count_metrics(expectation: Any) -> tuple[str, ...]:
    """Return the metrics that count how many rows a map expectation looks at."""
    if "column" in expectation.domain_keys:
        return ("table.row_count", "column_values.nonnull.unexpected_count")
    return ("table.row_count", f"{expectation.map_metric}.filtered_row_count")


def _counts(expectation: Any, metric: Callable[[str], Any], failing: int) -> Counts:
    rows = int(metric("table.row_count"))
    if "column" not in expectation.domain_keys:
        return Counts(rows, int(metric(f"{expectation.map_metric}.filtered_row_count")), failing)
    if expectation.map_metric in ("column_values.nonnull", "column_values.null"):
        return Counts(rows, rows, failing)  # missing values are what they look at
    return Counts(rows, rows - int(metric("column_values.nonnull.unexpected_count")), failing)


def _failing_rows(condition: Any) -> np.ndarray:
    """Return the positions that a map metric's condition marks.

    A comparison with a missing value that pandas leaves open (NA) fails, as it does for NumPy's NaN: otherwise the
    verdict would depend on which of the two a partition's column happens to have.
    """
    mask: pd.Series = condition[0]
    values = mask.to_numpy(dtype=bool, na_value=True) if mask.dtype == "boolean" else mask.to_numpy(dtype=bool)
    positions: np.ndarray = mask.index.to_numpy()[values]
    return positions


def _is_in_order(before: Any, after: Any, *, rising: bool, strictly: bool) -> bool:
    if before == after:
        return not strictly
    return bool(after > before) if rising else bool(after < before)


# --- results --------------------------------------------------------------------------------------------------------


def _verdict(rule: Rule, result: Any, rows_evaluated: int | None = None, rows_failing: int | None = None) -> Verdict:
    return Verdict(rule, bool(result.success), dict(result.result), rows_evaluated, rows_failing)


@contextmanager
def _raises_named(rule: Rule) -> Iterator[None]:
    """Turn what GX raises into ExpectationRaised with the rule's name. Never carries a data value."""
    try:
        yield
    except FileRejected:
        raise
    except Exception as error:  # noqa: BLE001 GX raises anything for values that it cannot judge
        _raise_named(rule, error)


def _raise_named(rule: Rule, error: BaseException) -> NoReturn:
    columns = f" on {', '.join(map(repr, rule.columns))}" if rule.columns else ""
    if any(isinstance(cause, MemoryError) for cause in _causes(error)):
        raise MemoryError from None  # the task's fault, not the expectation's
    why, cause_type = _kind_of(error)
    raise ExpectationRaised(f"{rule.name}{columns} gave no verdict: {why}", cause_type) from None


_HINTS: tuple[tuple[type[BaseException], str], ...] = (
    (TypeError, "the column's values are not of the kind that the expectation compares; check the column's type"),
    (KeyError, "a column that it reads is not in the file"),
    (OverflowError, "a value is too large to be compared"),
)


def _kind_of(error: BaseException) -> tuple[str, type[BaseException]]:
    """Return what happened, without the message: it may quote a value of the data."""
    causes = list(_causes(error))
    for cause in causes:
        for kind, hint in _HINTS:
            if isinstance(cause, kind):
                return f"{type(cause).__name__}: {hint}", kind
    name = type(causes[-1]).__name__
    return f"{name} inside Great Expectations; its arguments do not fit the column's values", type(causes[-1])


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


# --- metrics that GX computes value by value ------------------------------------------------------------------------


@functools.cache
def _register_metrics() -> None:
    """Replace GX's `between` by one that compares nullable integers and all timestamps at once.

    GX compares NumPy integers, floats and nanosecond timestamps as columns, everything else value by value in Python.
    Registering a metric again is GX's own way to extend it; the comparison itself remains GX's.
    """
    original = inspect.unwrap(gx().ColumnValuesBetween._pandas)

    class ColumnValuesBetweenVectorized(gx().ColumnValuesBetween):  # type: ignore[misc] # as above
        @gx().column_condition_partial(engine=gx().PandasExecutionEngine)  # type: ignore[untyped-decorator] # GX has no types
        def _pandas(cls, column: pd.Series, **kwargs: Any) -> Any:  # noqa: N805 GX makes it a class method
            if column.dtype == "Int64":
                column = column.astype("int64")  # GX has left the missing values out
            elif pd.api.types.is_datetime64_dtype(column.dtype):
                column = column.astype("datetime64[us]")
                bounds = {name: kwargs.get(name) for name in ("min_value", "max_value", "strict_min", "strict_max")}
                return cls._pandas_vectorized(column, **bounds)
            return original(cls, column, **kwargs)
