"""Check a file with Great Expectations (GX), partition by partition.

For each partition, GX's metric graph computes a mask for each expectation on rows, and a metric for each expectation on
the file as a whole. Masks show which rows break which rule, and metrics become mergeable states. At the end, GX itself
gives the verdicts on the merged values.
"""

import functools
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.errors import FileRejected
from flows.refinery.validate.aggregates import AGGREGATES, Counts, InOrder, ValueCounts, hashes_of
from flows.refinery.validate.gx import gx
from flows.refinery.validate.partition_engine import partition_engine
from flows.refinery.validate.rules import Method, Rule

_RUNTIME = {"catch_exceptions": False, "result_format": {"result_format": "BASIC", "partial_unexpected_count": 0}}


class ExpectationRaised(FileRejected):
    """Great Expectations raised an error instead of giving a verdict, because the expectation cannot check the column's
    values."""

    def __init__(self, message: str, cause_type: type[BaseException] | None = None) -> None:
        super().__init__(message)
        self.cause_type = cause_type


@dataclass(frozen=True)
class Verdict:
    """GX's verdict on one rule over the whole file."""

    rule: Rule
    success: bool  # whether the expectation is met, taking its `mostly` into account
    result: dict[str, Any]  # GX's result, with keys such as observed_value, element_count and unexpected_count
    rows_evaluated: int | None = None  # None unless the expectation counts failing rows
    rows_failing: int | None = None


@dataclass(frozen=True)
class RuleFinding:
    """The result of one rule for one partition."""

    failing: np.ndarray | None = None  # the positions of the failing rows; None if a single partition cannot show them
    # the state to merge with the states of other partitions; None if the rule needs nothing from this partition
    state: Any = None
    key_hashes: np.ndarray | None = None  # one hash for each row if the rule is on uniqueness, None otherwise


def merge_states(earlier: Sequence[Any], later: Sequence[Any]) -> tuple[Any, ...]:
    """Merge the states of all rules for two consecutive parts of a file. A state is None if there is nothing to
    merge."""
    return tuple(
        after if before is None else before if after is None else before.merge(after)
        for before, after in zip(earlier, later, strict=True)
    )


class Judge:
    """Checks partitions with a list of rules. Several threads may use a judge, but it serves only one at a time.
    Everything that depends only on the rules is created once: GX's objects, their metrics, and the order in which the
    metrics are computed."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._engine = partition_engine()
        self._batches = [_batch_of(rule) for rule in self.rules]
        self._expectations = [
            _domain_object(rule, rule.arguments, batch) for rule, batch in zip(self.rules, self._batches, strict=True)
        ]
        self._metrics = [
            {name: _metric(expectation, name) for name in _partition_metrics(rule, expectation)}
            for rule, expectation in zip(self.rules, self._expectations, strict=True)
        ]
        self._dependencies: dict[int, Any] = {}
        self._order: list[list[Any]] | None = None
        self._domains: dict[int, Mapping[str, Any]] = {}
        self._lock = threading.RLock()

    def judge(self, frame: pd.DataFrame, row_numbers: np.ndarray) -> tuple[RuleFinding, ...]:
        """Check a partition, and return the result of each rule.

        Args:
            frame: the partition's columns in the dtypes that GX checks, with a RangeIndex.
            row_numbers: the number of each row in the file, as int64.

        Raises:
            FileRejected: an expectation cannot be checked on these rows. The message names it or its column.
        """
        with self._loaded(frame, self.rules):
            if self._order is None:
                self._order = self._order_of([metric for metrics in self._metrics for metric in metrics.values()])
            found = self._resolve(self._order)
            findings = []
            for position, rule in enumerate(self.rules):
                with _raises_named(rule):
                    findings.append(self._finding(position, found, row_numbers))
            return tuple(findings)

    def verdict(self, position: int, state: Any, structure: pd.DataFrame) -> Verdict:
        """Return GX's verdict on the rule at `position`, from the merged state of all partitions. `structure` is a
        frame without rows that has the file's columns in their order and dtypes."""
        rule, expectation = self.rules[position], self._expectations[position]
        with _raises_named(rule):
            if rule.method is Method.STRUCTURE:
                return self._validate(rule, expectation, structure)
            if rule.method is Method.DISTINCT:
                return self._validate_distinct(position, state)
            if isinstance(state, Counts | InOrder):
                counts = state if isinstance(state, Counts) else state.counts
                return self._verdict_on_counts(position, counts)
            return self._verdict_on(position, {expectation.metric_dependencies[0]: state.metric()})

    def judge_entire(self, position: int, frame: pd.DataFrame) -> tuple[Verdict, np.ndarray]:
        """Check the rule at `position` on all rows of a file at once. This is for rules whose results cannot be merged.

        Returns:
            the verdict, and the positions of the failing rows (none for an expectation on the file as a whole).
        """
        rule, expectation = self.rules[position], self._expectations[position]
        nothing = np.empty(0, dtype=np.int64)
        with _raises_named(rule):
            if rule.level == "table":
                return self._validate(rule, expectation, frame), nothing
            condition = f"{expectation.map_metric}.condition"
            wanted = {name: _metric(expectation, name) for name in (condition, *_row_count(rule))}
            with self._loaded(frame, [rule]):
                found = self._resolve(self._order_of(list(wanted.values())))
            failing, counts = _marked(rule, lambda name: found[wanted[name].id], condition, len(frame))
            return self._verdict_on_counts(position, counts), failing

    def key_rows(self, position: int, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows and key columns in `frame` that a uniqueness rule compares, with the rows' positions in
        `frame` as the index."""
        with self._loaded(frame, [self.rules[position]]):
            return self._keys(position)

    # --- one partition ----------------------------------------------------------------------------------------

    @contextmanager
    def _loaded(self, frame: pd.DataFrame, rules: Sequence[Rule]) -> Iterator[None]:
        """Load a partition into GX. Each set of columns that rules read becomes a separate batch, because for some
        rules GX filters all columns of a batch."""
        names = list(frame.columns)
        with self._lock:
            self._engine.begin(frame, {_batch_of(rule): rule.columns_needed(names) for rule in rules})
            try:
                yield
            finally:
                self._engine.end()  # the judge stays in memory for other files, so it must release the partition

    def _finding(self, position: int, found: Mapping[Any, Any], row_numbers: np.ndarray) -> RuleFinding:
        rule, expectation, metrics = self.rules[position], self._expectations[position], self._metrics[position]
        metric: Callable[[str], Any] = lambda name: found[metrics[name].id]  # noqa: E731
        values: Callable[[], pd.Series] = lambda: self._values(position)  # noqa: E731
        if rule.method in (Method.ROWS, Method.ORDER):
            failing, counts = _marked(rule, metric, f"{expectation.map_metric}.condition", len(row_numbers))
            in_order = rule.method is Method.ORDER
            return RuleFinding(failing, self._in_order(position, counts, row_numbers) if in_order else counts)
        if rule.method is Method.UNIQUE:
            keys = self._keys(position)
            counts = Counts(_rows(rule, metric, len(row_numbers)), len(keys), 0)
            return RuleFinding(state=counts, key_hashes=_hashes_by_row(keys, row_numbers))
        if rule.method is Method.MERGED:
            _, state_of = AGGREGATES[expectation.metric_dependencies[0]]
            return RuleFinding(state=state_of(metric, values))
        if rule.method is Method.DISTINCT:
            return RuleFinding(state=ValueCounts.of(values()))
        return RuleFinding()

    def _in_order(self, position: int, counts: Counts, row_numbers: np.ndarray) -> InOrder:
        rule = self.rules[position]
        values = self._values(position)
        in_order = functools.partial(
            _is_in_order,
            rising="increasing" in rule.name,
            strictly=bool(rule.arguments.get("strictly")),
        )
        if values.empty:
            return InOrder(counts, in_order)
        return InOrder(counts, in_order, values.iloc[0], values.iloc[-1], int(row_numbers[values.index[0]]))

    def _keys(self, position: int) -> pd.DataFrame:
        """Return the key columns of the rows in the loaded partition that a uniqueness rule compares."""
        rule = self.rules[position]
        if "column" in rule.arguments:
            return self._values(position).to_frame(rule.columns[0])
        keys: pd.DataFrame = self._engine.get_domain_records(self._domain(position))[list(rule.columns)]
        return keys

    def _values(self, position: int) -> pd.Series:
        """Return the column that a rule reads, in the rows that its row_condition selects and without missing
        values."""
        values: pd.Series = self._engine.column(self._domain(position), with_missing=False)
        return values

    def _domain(self, position: int) -> Mapping[str, Any]:
        """Return the arguments with which GX selects the rows that a rule checks."""
        if position not in self._domains:
            expectation = self._expectations[position]
            map_metric = getattr(expectation, "map_metric", None)
            name = f"{map_metric}.condition" if map_metric else "column.max"
            self._domains[position] = _metric(expectation, name).metric_domain_kwargs
        return self._domains[position]

    # --- GX's graph ---------------------------------------------------------------------------------------------

    def _order_of(self, configurations: list[Any]) -> list[list[Any]]:
        """Return the metrics and their dependencies in an order in which GX can compute them. Each list of metrics
        needs only the lists before it."""
        graph = gx().MetricsCalculator(self._engine).build_metric_dependency_graph(configurations, dict(_RUNTIME))
        metrics = {edge.left.id: edge.left for edge in graph.edges}
        needs: dict[Any, set[Any]] = {}
        wanted = [metric.id for metric in configurations]
        for key in wanted:  # which grows in this loop
            if key not in needs:
                self._engine.drop_unused_dependencies(metrics[key])
                needed = [metric.id for metric in metrics[key].metric_dependencies.values()]
                needs[key] = set(needed)
                wanted += needed
        order = []
        while needs:
            ready = [key for key, needed in needs.items() if not needed & needs.keys()]
            order.append([metrics[key] for key in ready])
            for key in ready:
                del needs[key]
        return order

    def _resolve(self, order: list[list[Any]]) -> Mapping[Any, Any]:
        found: dict[Any, Any] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for step in order:
                    found.update(self._engine.resolve_metrics(step, found, dict(_RUNTIME)))
        except gx().MetricResolutionError as error:
            self._blame(error)
        return found

    def _blame(self, error: Any) -> NoReturn:
        """Raise ExpectationRaised with the name of the rule whose metric failed, if it is among these rules."""
        failed = {metric.id for metric in error.failed_metrics}
        for rule, metrics in zip(self.rules, self._metrics, strict=True):
            for metric in metrics.values():
                if any(part.id in failed for step in self._order_of([metric]) for part in step):
                    _raise_named(rule, error)
        why, cause_type = _kind_of(error)
        raise ExpectationRaised(f"Great Expectations could not compute a metric: {why}", cause_type) from None

    def _validate(self, rule: Rule, expectation: Any, frame: pd.DataFrame) -> Verdict:
        """Check an expectation on a frame in the same way as GX itself does."""
        with self._lock:
            self._engine.begin(frame, {})
            try:
                configurations = expectation.get_validation_dependencies(**self._run).get_metric_configurations()
                metrics = dict(self._resolve(self._order_of(configurations)))
                result = expectation.metrics_validate(metrics=metrics, **self._run)
            finally:
                self._engine.end()
        return Verdict(rule, bool(result.success), dict(result.result))

    def _validate_distinct(self, position: int, state: ValueCounts) -> Verdict:
        rule = self.rules[position]
        # The row_condition was already applied in each partition, so the union has only values in selected rows.
        arguments = {k: v for k, v in rule.arguments.items() if k not in ("row_condition", "condition_parser")}
        expectation = _domain_object(rule, arguments, self._batches[position])
        return self._validate(rule, expectation, pd.DataFrame({rule.columns[0]: state.distinct_values()}))

    def _verdict_on_counts(self, position: int, counts: Counts) -> Verdict:
        map_metric = self._expectations[position].map_metric
        values = {
            "table.row_count": counts.rows,
            "column_values.nonnull.unexpected_count": counts.rows - counts.evaluated,
            f"{map_metric}.filtered_row_count": counts.evaluated,
            f"{map_metric}.unexpected_count": counts.failing,
            f"{map_metric}.unexpected_values": [],
        }
        verdict = self._verdict_on(position, values)
        return replace(verdict, rows_evaluated=counts.evaluated, rows_failing=counts.failing)

    def _verdict_on(self, position: int, values: Mapping[str, Any]) -> Verdict:
        """Return GX's verdict from the values of metrics that are already known, by the metrics' names. GX's
        `metrics_validate` would build the expectation's metrics again, so this calls `_validate`, which every
        expectation implements."""
        expectation = self._expectations[position]
        needed = self._dependencies.get(position)
        if needed is None:
            needed = self._dependencies[position] = expectation.get_validation_dependencies(**self._run)
        given = {name: values[name] for name in needed.metric_configurations}
        runtime = {**_RUNTIME, "result_format": needed.result_format}
        found = expectation._validate(metrics=given, runtime_configuration=runtime, execution_engine=self._engine)
        return Verdict(self.rules[position], bool(found["success"]), dict(found.get("result") or {}))

    @property
    def _run(self) -> dict[str, Any]:
        return {"execution_engine": self._engine, "runtime_configuration": dict(_RUNTIME)}


@dataclass(frozen=True)
class _Rules:
    """Rules as the key of a cache. Two keys are equal if all of their rules have the same representation."""

    written: str
    rules: tuple[Rule, ...] = field(compare=False)


def judge_of(rules: tuple[Rule, ...]) -> Judge:
    """Return the judge that checks some rules. Judges are cached, because a task checks many files with a few
    contracts."""
    return _judge_of(_Rules(repr(rules), rules))


@functools.lru_cache(maxsize=64)
def _judge_of(rules: _Rules) -> Judge:
    return Judge(rules.rules)


# --- metrics of an expectation ------------------------------------------------------------------------------------


def gx_expectation(name: str, arguments: Mapping[str, Any]) -> Any:
    """Create GX's object for an expectation. Raise ValueError if GX rejects the arguments, or ExpectationNotFoundError
    if GX has no such expectation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # string row_conditions work until GX 2
        return gx().ExpectationConfiguration(type=name, kwargs=dict(arguments)).to_domain_obj()


def _batch_of(rule: Rule) -> str:
    """Return the name of the batch that a rule reads. Rules with the same columns and row_condition share a batch."""
    return f"{rule.columns} where {rule.arguments.get('row_condition')!r}"


def _domain_object(rule: Rule, arguments: Mapping[str, Any], batch: str) -> Any:
    try:
        return gx_expectation(rule.name, {**arguments, "batch_id": batch})
    except gx().ExpectationNotFoundError:
        raise ContractInvalid(f"{rule.id}: the installed Great Expectations does not have it") from None
    except ValueError as error:  # pydantic's ValidationError is a ValueError
        raise ContractInvalid(f"{rule.id}: Great Expectations rejects its arguments: {_faults(error)}") from None


def _faults(error: ValueError) -> str:
    """Return Pydantic's errors as text, at most one for each argument. If an argument may have several types, Pydantic
    reports an error for each of them."""
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
        return (f"{expectation.map_metric}.condition", *_row_count(rule))
    if rule.method is Method.UNIQUE:
        return _row_count(rule)
    if rule.method is Method.MERGED:
        needed, _ = AGGREGATES[expectation.metric_dependencies[0]]
        return needed
    return ()


def _hashes_by_row(keys: pd.DataFrame, row_numbers: np.ndarray) -> np.ndarray:
    """Return one hash for each row. It is the hash of the row's key or, if the row is not compared, a value that hardly
    ever repeats."""
    if len(keys) == len(row_numbers):
        return hashes_of(keys)
    hashes: np.ndarray = row_numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hashes[keys.index.to_numpy()] = hashes_of(keys)
    return hashes


def _row_count(rule: Rule) -> tuple[str, ...]:
    """Return the name of the metric that counts the rows that a rule's row_condition selects, or () if the rule has no
    row_condition."""
    return ("table.row_count",) if rule.arguments.get("row_condition") else ()


def _rows(rule: Rule, metric: Callable[[str], Any], rows: int) -> int:
    return int(metric("table.row_count")) if _row_count(rule) else rows


def _marked(rule: Rule, metric: Callable[[str], Any], condition: str, rows: int) -> tuple[np.ndarray, Counts]:
    """Return the positions of the rows that the condition of GX's metric marks as failing, and the row counts.

    A comparison with a missing value gives pandas' NA or False, depending on how the partition represents missing
    values. Both count as failures, so the verdict does not depend on the representation.

    Args:
        metric: returns the value of a metric by its name.
        condition: the name of the condition's metric.
        rows: the number of rows in the frame.
    """
    mask: pd.Series = metric(condition)[0]  # it has only the rows that are not skipped because a value is missing
    values = mask.to_numpy(dtype=bool, na_value=True) if mask.dtype == "boolean" else mask.to_numpy(dtype=bool)
    places = np.flatnonzero(values)
    index = mask.index
    is_entire = isinstance(index, pd.RangeIndex) and len(index) == rows
    failing: np.ndarray = places if is_entire else index.to_numpy()[places]
    return failing, Counts(_rows(rule, metric, rows), len(mask), len(failing))


def _is_in_order(before: Any, after: Any, *, rising: bool, strictly: bool) -> bool:
    if before == after:
        return not strictly
    return bool(after > before) if rising else bool(after < before)


# --- errors ---------------------------------------------------------------------------------------------------------


@contextmanager
def _raises_named(rule: Rule) -> Iterator[None]:
    """Convert errors that GX raises into ExpectationRaised, whose message names the rule but contains no values of the
    data."""
    try:
        yield
    except FileRejected:
        raise
    except Exception as error:  # noqa: BLE001 GX may raise anything for values that it cannot check
        _raise_named(rule, error)


def _raise_named(rule: Rule, error: BaseException) -> NoReturn:
    columns = f" on {', '.join(map(repr, rule.columns))}" if rule.columns else ""
    if any(isinstance(cause, MemoryError) for cause in _causes(error)):
        raise MemoryError from None  # the task has too little memory; the expectation is not to blame
    why, cause_type = _kind_of(error)
    raise ExpectationRaised(f"{rule.name}{columns} gave no verdict: {why}", cause_type) from None


_HINTS: tuple[tuple[type[BaseException], str], ...] = (
    (TypeError, "the column's values do not have a type that the expectation compares; check the column's type"),
    (KeyError, "a column that it reads is not in the file"),
    (OverflowError, "a value is too large to be compared"),
)


def _kind_of(error: BaseException) -> tuple[str, type[BaseException]]:
    """Return a description and the type of an error. The error's own message is left out, because it may quote values
    of the data."""
    causes = list(_causes(error))
    for cause in causes:
        for kind, hint in _HINTS:
            if isinstance(cause, kind):
                return f"{type(cause).__name__}: {hint}", kind
    name = type(causes[-1]).__name__
    return f"{name} inside Great Expectations; the arguments do not fit the column's values", type(causes[-1])


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
