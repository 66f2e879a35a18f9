"""From a file to its good rows, its bad rows and the tallies of every rule: partition by partition, then the verdict."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.aggregates import Counts
from flows.refinery.bits import has_bit, no_bits, set_bit
from flows.refinery.coercion import MISSING_RULE, TYPE_RULES, coerce, dtype_of, empty
from flows.refinery.contract_model import Column, Contract
from flows.refinery.errors import FileRejected
from flows.refinery.expectations import Judge, Judgement, Verdict, merge_states
from flows.refinery.formats import read_partitions
from flows.refinery.frames import FrameFile, SideFile
from flows.refinery.partition import Limits, Partition
from flows.refinery.plan import MISSING_COLUMN, UNKNOWN_COLUMN, Header, Plan
from flows.refinery.outputs import OutputFile
from flows.refinery.preprocess import Prepared, RowsUnaccounted, preprocess_file
from flows.refinery.quarantine import BadRows, QuarantineWriter
from flows.refinery.rules import WHOLE_FILE_ROW_LIMIT, Method, Rule, rules_of
from flows.refinery.tallies import (
    Reason,
    Tally,
    column_list,
    column_of,
    expected_of,
    percent,
    reason_of,
    tally_of,
)
from flows.refinery.uniqueness import HashCollector, duplicated_rows

__all__ = [
    "OutputFile",
    "Prepared",
    "Reason",
    "Tally",
    "Validated",
    "preprocess_file",
    "refine_partition",
    "validate_file",
]

ROWS_PER_PARTITION = 250_000
UNKNOWN_COLUMNS, MISSING_COLUMNS = "unknown_columns", "missing_columns"
Progress = Callable[[int], None]


class TooManyRowsToJudge(FileRejected):
    """An expectation that GX can only judge on a whole column meets a file with more rows than are held in memory."""

    code = "too_many_rows_to_judge"


@dataclass(frozen=True)
class Validated:
    """A file that was decoded, coerced and judged.

    Attributes:
        quarantined: bad rows by the first rule that each broke.
        rejected: why the file is rejected; empty when it is accepted.
        good_path: the good rows (Arrow IPC file, with the column _sluice_row_number); None for a rejected file.
        quarantine_path: the bad rows (Parquet); None when there are none.
        columns_in: the file's columns.
        kinds: the contract's type of each column of the good rows.
        nulls: the columns of the good rows that hold missing values.
    """

    rows_in: int
    rows_good: int
    quarantined: dict[str, int]
    tallies: tuple[Tally, ...]
    rejected: tuple[Reason, ...]
    good_path: Path | None
    quarantine_path: Path | None
    columns_in: tuple[str, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)
    nulls: frozenset[str] = frozenset()


def validate_file(
    source: Path,
    contract: Contract,
    work_dir: Path,
    *,
    limits: Limits | None = None,
    on_progress: Progress | None = None,
    rows_per_partition: int = ROWS_PER_PARTITION,
) -> Validated:
    """Decode a file, coerce it to the contract's types, judge it with GX and part good rows from bad, in bounded memory.

    Args:
        work_dir: an existing folder for good.arrow, quarantine.parquet and what is needed in between.
        on_progress: called with the rows done so far.

    Raises:
        FileRejected: a subclass says why the file cannot be read or judged at all.
        ContractInvalid: an expectation cannot be used.
    """
    rules = rules_of(contract)
    read = _Reader(source, contract, limits or Limits(), rows_per_partition)
    header = Header()
    while True:
        attempt = _Pass(read, contract, rules, header, work_dir, on_progress or (lambda _: None))
        try:
            return attempt.run()
        except _HeaderGrew as grown:
            # A later partition showed a new column, or that an undeclared one is of a wider type.
            # It cannot go on for long: types only widen, columns only come.
            header = grown.header
        finally:
            attempt.close()


class _HeaderGrew(Exception):  # noqa: N818 not an error: the pass begins anew
    def __init__(self, header: Header) -> None:
        super().__init__()
        self.header = header


@dataclass(frozen=True)
class _Reader:
    source: Path
    contract: Contract
    limits: Limits
    rows_per_partition: int

    def partitions(self, header: Header) -> Iterator[Partition]:
        """Read the file; columns whose values turned out to be of several types are read as the text that they are."""
        texts = {name: Column(type="string") for name, kind in header.kinds.items() if kind == "string"}
        contract = self.contract.model_copy(update={"columns": {**self.contract.columns, **texts}})
        return read_partitions(self.source, contract, rows_per_partition=self.rows_per_partition, limits=self.limits)


@dataclass(frozen=True)
class Refined:
    """One partition, refined.

    Attributes:
        frame: all of its rows in the contract's types, as GX judged them.
        bits: rows x words; bit k of a row is set where it breaks the plan's k-th row rule.
        is_bad: mask of the rows that go to quarantine.
        judgement: None where the contract has no expectation that can be judged.
    """

    frame: pd.DataFrame
    bits: np.ndarray
    is_bad: np.ndarray
    judgement: Judgement | None


def refine_partition(partition: Partition, plan: Plan, judge: Judge | None) -> Refined:
    """Coerce and judge one partition. The same for a partition in memory, in a stream, or on a worker of a cluster."""
    rows = len(partition.frame)
    bits = no_bits(rows, len(plan.row_rules))
    columns: dict[str, pd.Series] = {}
    for name, column in plan.columns.items():
        if name in partition.frame.columns:
            columns[name] = _coerced(partition, name, column, plan, bits)
        else:
            columns[name] = empty(column.type, rows)
            _flag(bits, plan, f"{MISSING_COLUMN}({name})", slice(None))
    for name in plan.unknown:
        if name in partition.frame.columns:
            _flag(bits, plan, UNKNOWN_COLUMN, partition.frame[name].notna().to_numpy())
    frame = pd.DataFrame(columns, index=pd.RangeIndex(rows))
    judgement = judge.judge(frame, partition.row_numbers) if judge else None
    if judge and judgement:
        for rule, failing in zip(judge.rules, judgement.failing, strict=True):
            if failing is not None and len(failing):
                set_bit(bits, failing, plan.places[rule.id])
    return Refined(frame, bits, _is_bad(bits, plan), judgement)


def _coerced(partition: Partition, name: str, column: Column, plan: Plan, bits: np.ndarray) -> pd.Series:
    coerced = coerce(partition.frame[name], column, partition.source_format)
    if coerced.unreadable.any():
        _flag(bits, plan, f"{TYPE_RULES[column.type]}({name})", coerced.unreadable)
    if not column.nullable and coerced.missing.any():
        _flag(bits, plan, f"{MISSING_RULE}({name})", coerced.missing)
    return coerced.values


def _flag(bits: np.ndarray, plan: Plan, rule_id: str, rows: Any) -> None:
    place = plan.places.get(rule_id)
    if place is not None:
        set_bit(bits, rows, place)


def _is_bad(bits: np.ndarray, plan: Plan) -> np.ndarray:
    blocking = no_bits(1, len(plan.row_rules))
    for place, rule in enumerate(plan.row_rules):
        if rule.blocking:
            set_bit(blocking, slice(None), place)
    bad: np.ndarray = (bits & blocking).any(axis=1)
    return bad


# --- one pass over a file ----------------------------------------------------------------------------------------------


class _Pass:
    """One pass over the partitions of a file, and the verdict at its end."""

    def __init__(
        self,
        read: _Reader,
        contract: Contract,
        rules: Sequence[Rule],
        header: Header,
        work_dir: Path,
        on_progress: Progress,
    ) -> None:
        self._read, self._contract, self._all_rules = read, contract, tuple(rules)
        self._header, self._work_dir, self._on_progress = header, work_dir, on_progress
        self._rows_in = 0
        self._misfits: dict[str, int] = {}
        self._plan: Plan | None = None
        self._reasons: list[Reason] = []
        self._tallies: list[Tally] = []
        self._open: list[Any] = []

    def close(self) -> None:
        """Close the files that an interrupted pass left open."""
        for writer in self._open:
            writer.close()

    def run(self) -> Validated:
        for partition in self._read.partitions(self._header):
            self._rows_in += partition.rows_in
            if self._plan is None:
                self._begin(partition)
            elif not self._reasons:
                self._require_same_header(partition)
            for misfit in partition.misfits:
                self._misfits[misfit.reason] = self._misfits.get(misfit.reason, 0) + 1
            if not self._reasons:  # of a file that is rejected already only the rows are counted
                self._take(partition)
                gc.collect(0)
            self._on_progress(self._rows_in)
        if self._plan is None:
            self._begin(Partition(pd.DataFrame(), np.empty(0, dtype=np.int64)))
        return self._finish()

    # --- the beginning ----------------------------------------------------------------------------------------

    def _begin(self, partition: Partition) -> None:
        self._header = self._grown(partition)
        self._plan = plan = Plan.of(self._contract, self._all_rules, self._header)
        self._check_columns(plan)
        judged = [rule for rule in self._all_rules if not rule.columns_missing(list(plan.columns))]
        for rule in self._all_rules:
            if rule not in judged:
                self._tell_columns_missing(rule, plan)
        self._judge = Judge(judged) if judged else None
        self._rules = tuple(judged)
        self._states: tuple[Any, ...] = (None,) * len(judged)
        self._words = no_bits(0, len(plan.row_rules)).shape[1]
        self._bad = BadRows(plan.row_rules)
        self._seen_nulls: set[str] = set()
        self._broken = np.zeros(len(plan.row_rules), dtype=np.int64)
        self._good = FrameFile(self._work_dir / "good.arrow", plan.kinds)
        self._side = SideFile(self._work_dir / "late.arrow", plan, [r for r in judged if r.is_late])
        self._quarantine = self._quarantine_writer()
        self._collectors = {place: HashCollector() for place, rule in enumerate(judged) if rule.method is Method.UNIQUE}
        self._open = [self._good, self._side, self._quarantine]

    def _grown(self, partition: Partition) -> Header:
        infer = self._contract.unknown_columns == "evolve"
        return self._header.joined(partition.frame, self._contract.columns, infer)

    def _require_same_header(self, partition: Partition) -> None:
        grown = self._grown(partition)
        if grown != self._header:
            raise _HeaderGrew(grown)

    def _check_columns(self, plan: Plan) -> None:
        missing = [name for name in plan.filled if self._contract.columns[name].required]
        refuse_missing = self._contract.missing_columns == "freeze"
        if missing:
            self._tallies.append(_columns_tally(MISSING_COLUMNS, missing, "critical" if refuse_missing else "warning"))
        if missing and refuse_missing:
            self._reasons.append(
                Reason(
                    MISSING_COLUMNS,
                    f"the file lacks {column_list(missing)}, which the contract requires",
                    observed=list(self._header.columns),
                    expected=list(self._contract.columns),
                )
            )
        refuse_unknown = self._contract.unknown_columns == "freeze"
        if plan.unknown:
            severity = "critical" if refuse_unknown else "warning"
            self._tallies.append(_columns_tally(UNKNOWN_COLUMNS, list(plan.unknown), severity))
        if plan.unknown and refuse_unknown:
            self._reasons.append(
                Reason(
                    UNKNOWN_COLUMNS,
                    f"the file has {column_list(plan.unknown)}, which the contract does not know",
                    observed=list(self._header.columns),
                    expected=list(self._contract.columns),
                )
            )

    def _tell_columns_missing(self, rule: Rule, plan: Plan) -> None:
        missing = rule.columns_missing(list(plan.columns))
        self._tallies.append(
            Tally(rule.id, rule.name, column_of(rule), rule.level, rule.severity, False, expected=expected_of(rule))
        )
        if rule.severity != "info":
            self._reasons.append(
                Reason(rule.id, f"{rule.id} cannot be judged: the file has no {column_list(missing)}", None, missing)
            )

    def _quarantine_writer(self) -> QuarantineWriter:
        assert self._plan is not None
        return QuarantineWriter(self._work_dir / "quarantine.parquet", self._plan.row_rules, self._header.columns)

    # --- each partition -----------------------------------------------------------------------------------------

    def _take(self, partition: Partition) -> None:
        assert self._plan is not None
        refined = refine_partition(partition, self._plan, self._judge)
        if refined.judgement and self._judge:
            self._states = merge_states(self._states, refined.judgement.states)
        for place in range(len(self._plan.row_rules)):
            self._broken[place] += int(has_bit(refined.bits, place).sum())
        self._collect_keys(refined.frame)
        self._side.write(refined.frame, partition.row_numbers)
        positions = np.flatnonzero(refined.is_bad)
        self._bad.add(partition.row_numbers[positions], refined.bits[positions])
        self._quarantine.write(partition, positions, refined.bits[positions])
        self._good.write(refined.frame[~refined.is_bad], partition.row_numbers[~refined.is_bad])

    def _collect_keys(self, frame: pd.DataFrame) -> None:
        for place, collector in self._collectors.items():
            assert self._judge is not None
            collector.add(self._judge.key_rows(place, frame))

    # --- the end ------------------------------------------------------------------------------------------------

    def _finish(self) -> Validated:
        assert self._plan is not None
        self.close()
        if not self._reasons:
            late = self._judge_late()
            if late and not self._reasons:
                self._apply_late(late)
        quarantined = {**self._misfits, **self._bad.counts(self._words)}
        bad = sum(quarantined.values())
        self._tally_rows()
        if not self._reasons:
            self._judge_fraction(bad)
        good = self._good.rows
        if not self._reasons and self._rows_in != good + bad:
            raise RowsUnaccounted(f"{self._rows_in} rows came in, {good} are good and {bad} bad; nothing is published")
        return Validated(
            rows_in=self._rows_in,
            rows_good=0 if self._reasons else good,
            quarantined=quarantined,
            tallies=tuple(self._tallies),
            rejected=tuple(self._reasons),
            good_path=None if self._reasons else self._good.path,
            quarantine_path=self._quarantine.close(),
            columns_in=self._header.columns,
            kinds=self._plan.kinds,
            nulls=frozenset(self._good.nulls),
        )

    def _judge_late(self) -> list[tuple[int, np.ndarray]]:
        """Every expectation's verdict; gives the rows that only now turn out to be bad, by row rule."""
        assert self._plan is not None
        late = []
        structure = _structure(self._plan, self._header, self._good)
        for place, rule in enumerate(self._rules):
            verdict, rows = self._verdict(place, rule, structure)
            if len(rows):
                late.append((self._plan.places[rule.id], rows))
            self._tell(verdict)
        return late

    def _verdict(self, place: int, rule: Rule, structure: pd.DataFrame) -> tuple[Verdict, np.ndarray]:
        assert self._judge is not None
        state = self._states[place]
        nothing = np.empty(0, dtype=np.int64)
        if rule.method is Method.UNIQUE:
            rows = duplicated_rows(self._collectors[place], lambda: self._keys_again(place))
            counts = replace(state or Counts(0, 0, 0), failing=len(rows))
            return self._judge.verdict(place, counts, structure), rows
        if rule.method is Method.WHOLE:
            if self._side.rows > WHOLE_FILE_ROW_LIMIT:
                raise TooManyRowsToJudge(
                    f"{rule.id} is judged on the whole column, for at most {WHOLE_FILE_ROW_LIMIT:,} rows;"
                    f" the file has {self._side.rows:,}"
                )
            frame, numbers = self._side.read(rule)
            verdict, positions = self._judge.judge_entire(place, frame)
            return verdict, numbers[positions]
        if rule.method is Method.ORDER and state is not None:
            nothing = np.array(sorted(state.broken_rows), dtype=np.int64)
        return self._judge.verdict(place, state, structure), nothing

    def _keys_again(self, place: int) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        assert self._judge is not None
        for frame, numbers in self._side.batches():
            keys = self._judge.key_rows(place, frame)
            yield keys, numbers[keys.index.to_numpy()]

    def _apply_late(self, late: list[tuple[int, np.ndarray]]) -> None:
        """Move rows that turned out to be bad at the end: the quarantine is written anew from the source."""
        assert self._plan is not None
        self._bad = self._bad.with_late(late, self._words)
        blocking = [rows for place, rows in late if self._plan.row_rules[place].blocking]
        if not blocking:
            return
        self._good = self._good.without(np.unique(np.concatenate(blocking)))
        self._quarantine = self._quarantine_writer()
        self._open = [self._quarantine]
        for partition in self._read.partitions(self._header):
            positions, bits = self._bad.of(partition.row_numbers, self._words)
            self._quarantine.write(partition, positions, bits)

    def _tell(self, verdict: Verdict) -> None:
        self._tallies.append(tally_of(verdict))
        reason = reason_of(verdict)
        if reason:
            self._reasons.append(reason)

    def _tally_rows(self) -> None:
        assert self._plan is not None
        for reason, rows in sorted(self._misfits.items()):
            self._tallies.append(Tally(reason, reason, None, "decode", "warning", False, self._rows_in, rows))
        decoded = self._rows_in - sum(self._misfits.values())
        for place, rule in enumerate(self._plan.row_rules):
            if rule.expectation is None and self._broken[place]:
                name = rule.id.split("(", 1)[0]
                kind = "columns" if "column" in name else "coercion"
                column = rule.columns[0] if len(rule.columns) == 1 else None
                rows = int(self._broken[place])
                self._tallies.append(Tally(rule.id, name, column, kind, "warning", False, decoded, rows))

    def _judge_fraction(self, bad: int) -> None:
        limits = self._contract.bad_rows
        fraction = bad / self._rows_in if self._rows_in else 0.0
        say = f"{bad} of {self._rows_in} rows ({percent(fraction)}) are bad"
        if bad and limits.policy == "reject_file":
            self._reasons.append(Reason("bad_rows", f"{say}; the contract allows none", bad, 0))
        if limits.max_fraction is not None and fraction > limits.max_fraction:
            message = f"{say}; the contract allows at most {percent(limits.max_fraction)}"
            self._reasons.append(Reason("bad_rows.max_fraction", message, round(fraction, 6), limits.max_fraction))
        if limits.max_count is not None and bad > limits.max_count:
            message = f"{say}; the contract allows at most {limits.max_count}"
            self._reasons.append(Reason("bad_rows.max_count", message, bad, limits.max_count))


def _columns_tally(rule: str, columns: Sequence[str], severity: str) -> Tally:
    return Tally(rule, rule, None, "columns", severity, False, observed=list(columns))


def _structure(plan: Plan, header: Header, good: FrameFile) -> pd.DataFrame:
    """An empty frame with the file's own columns in their order, each in the type in which it was judged."""
    columns = {}
    for name in header.columns:
        kind = plan.kinds.get(name, "string")
        columns[name] = pd.Series(dtype=dtype_of(kind, nulls=name in good.nulls))
    return pd.DataFrame(columns)
