"""From a file to its good rows, its bad rows and what every rule found: partition by partition, then the verdict."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from flows.refinery.checks import Check, RejectionReason
from flows.refinery.contract.model import Column, Contract
from flows.refinery.errors import SluiceError
from flows.refinery.read.formats import read_partitions
from flows.refinery.read.partition import Limits, Partition
from flows.refinery.repair.corrections import Corrections
from flows.refinery.validate.arrow_spool import FrameFile, SideFile
from flows.refinery.validate.checks_of_rules import check_of, reason_of, reasons_of_bad_rows, row_rule_check
from flows.refinery.validate.coercion import MISSING_RULE, TYPE_RULES, coerce, empty
from flows.refinery.validate.column_policy import judge_columns
from flows.refinery.validate.expectations import Judge, Judgement, merge_states
from flows.refinery.validate.header_plan import MISSING_COLUMN, UNKNOWN_COLUMN, Header, Plan
from flows.refinery.validate.overlay import corrected
from flows.refinery.validate.quarantine import BadRows, QuarantineWriter
from flows.refinery.validate.rule_masks import has_bit, no_bits, set_bit
from flows.refinery.validate.rules import Rule, rules_of
from flows.refinery.validate.whole_file_rules import LateJudge, LateRows

ROWS_PER_PARTITION = 250_000
_NUMERIC = ("integer", "number")
Progress = Callable[[int], None]


class RowsUnaccounted(SluiceError):
    """Rows came in and are neither published, quarantined nor dropped: a fault of Sluice. Nothing may be published."""


@dataclass(frozen=True)
class Validated:
    """A file that was decoded, coerced and judged.

    Attributes:
        quarantined: bad rows by the first rule that each broke.
        rejected: why the file is rejected; empty when it is accepted.
        good_path: the good rows (Arrow IPC file, with the column _sluice_row_number); None for a rejected file.
        quarantine_path: the bad rows (Parquet, see quarantine.py); None when there are none.
        columns_in: the file's columns.
        kinds: the type of each column of the good rows, in the contract's words.
        nulls: the columns of the good rows that hold missing values.
    """

    rows_in: int
    rows_good: int
    quarantined: dict[str, int]
    checks: tuple[Check, ...]
    rejected: tuple[RejectionReason, ...]
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
    corrections: Corrections | None = None,
    limits: Limits | None = None,
    on_progress: Progress | None = None,
    rows_per_partition: int = ROWS_PER_PARTITION,
) -> Validated:
    """Decode a file, coerce it to the contract's types, judge it with GX, part good rows from bad; in bounded memory.

    Args:
        work_dir: an existing folder for good.arrow, quarantine.parquet and what is needed in between.
        corrections: what is to stand in some of the rows instead.
        on_progress: called with the rows done so far.

    Raises:
        FileRejected: a subclass says why the file cannot be read or judged at all.
        ContractInvalid: an expectation cannot be used.
        CorrectionsUnusable: the corrections do not fit the file.
    """
    reader = _Reader(source, contract, limits or Limits(), rows_per_partition, corrections)
    rules = rules_of(contract)
    header = Header()
    while True:
        try:
            return _one_pass(reader, rules, header, work_dir, on_progress or (lambda _: None))
        except _HeaderGrew as grown:
            # Only once: the header then is that of the whole file.
            header = grown.header


# --- one partition ----------------------------------------------------------------------------------------------------


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
            plan.flag(bits, f"{MISSING_COLUMN}({name})", slice(None))
            # In JSON other rows of the file may have it; then it is only a value that is missing here.
            plan.flag(bits, f"{MISSING_RULE}({name})", slice(None))
    for name in plan.unknown:
        if name in partition.frame.columns:
            plan.flag(bits, UNKNOWN_COLUMN, partition.frame[name].notna().to_numpy())
    frame = pd.DataFrame(columns, index=pd.RangeIndex(rows))
    judgement = judge.judge(frame, partition.row_numbers) if judge else None
    if judge and judgement:
        for rule, failing in zip(judge.rules, judgement.failing, strict=True):
            if failing is not None and len(failing):
                set_bit(bits, failing, plan.places[rule.id])
    return Refined(frame, bits, plan.is_bad(bits), judgement)


def _coerced(partition: Partition, name: str, column: Column, plan: Plan, bits: np.ndarray) -> pd.Series:
    coerced = coerce(_as_written(partition, name, column), column, partition.source_format)
    if coerced.unreadable.any():
        plan.flag(bits, f"{TYPE_RULES[column.type]}({name})", coerced.unreadable)
    if not column.nullable and coerced.missing.any():
        plan.flag(bits, f"{MISSING_RULE}({name})", coerced.missing)
    return coerced.values


def _as_written(partition: Partition, name: str, column: Column) -> pd.Series:
    """A raw column; texts as they are in the file where the text is what counts.

    "007" and "1e3" were read as 7 and 1000.0, and "FALSE" beside a missing value as an object. Of flags only true and
    false may be read as such: "+1" is none.
    """
    raw: pd.Series = partition.frame[name]
    if column.type in _NUMERIC or partition.texts is None or isinstance(raw.dtype, pd.StringDtype):
        return raw
    if column.type == "boolean" and pd.api.types.is_bool_dtype(raw.dtype):
        return raw
    return partition.texts(np.arange(len(raw)))[name] if raw.notna().any() else raw


# --- the whole file ---------------------------------------------------------------------------------------------------


class _HeaderGrew(Exception):
    """A later partition showed a new column, or that a column which the contract does not name is of a wider type."""

    def __init__(self, header: Header) -> None:
        super().__init__()
        self.header = header


@dataclass(frozen=True)
class _Reader:
    source: Path
    contract: Contract
    limits: Limits
    rows_per_partition: int
    corrections: Corrections | None

    def partitions(self) -> Iterator[Partition]:
        """Read the file from its beginning."""
        rows = self.rows_per_partition
        partitions = read_partitions(self.source, self.contract, rows_per_partition=rows, limits=self.limits)
        if self.corrections is None:
            return partitions
        return corrected(partitions, self.corrections, self.contract, self.limits)

    def grown(self, header: Header, partition: Partition) -> Header:
        """The header after one more partition."""
        infer = self.contract.unknown_columns == "evolve"
        return header.joined(partition, self.contract.columns, infer=infer)


def _one_pass(
    reader: _Reader, rules: tuple[Rule, ...], header: Header, work_dir: Path, on_progress: Progress
) -> Validated:
    partitions = reader.partitions()
    first = next(partitions)
    header = reader.grown(header, first)
    work = _Pass(reader, rules, header, work_dir)
    try:
        for partition in chain([first], partitions):
            grown = reader.grown(header, partition)
            if grown != header:
                for later in partitions:
                    grown = reader.grown(grown, later)
                raise _HeaderGrew(grown)
            work.take(partition)
            on_progress(work.rows_in)
            gc.collect()  # GX's graphs are cyclic: without this a partition's frames pile up
        return work.finish()
    finally:
        work.close()


class _Pass:
    """One pass over the partitions of a file whose header is known, and the verdict at its end."""

    def __init__(self, reader: _Reader, rules: tuple[Rule, ...], header: Header, work_dir: Path) -> None:
        self.rows_in = 0
        self._reader, self._contract, self._header, self._work_dir = reader, reader.contract, header, work_dir
        self._misfits: Counter[str] = Counter()
        self._plan = plan = Plan.of(self._contract, rules, header)
        found = judge_columns(self._contract, plan, header, rules)
        self._checks, self._reasons = list(found.checks), list(found.reasons)
        self._judge = Judge(found.judged) if found.judged else None
        self._states = (None,) * len(found.judged)
        self._broken = np.zeros(len(plan.row_rules), dtype=np.int64)
        self._bad = BadRows(plan.row_rules)
        self._judged_nulls: set[str] = set()
        self._good = FrameFile(work_dir / "good.arrow", plan.kinds)
        self._side = SideFile(work_dir / "late.arrow", plan, [rule for rule in found.judged if rule.is_late])
        self._late = LateJudge(self._judge, self._side) if self._judge else None
        self._quarantine = self._new_quarantine()

    def _new_quarantine(self) -> QuarantineWriter:
        path = self._work_dir / "quarantine.parquet"
        return QuarantineWriter(path, self._plan.row_rules, self._header.columns)

    def take(self, partition: Partition) -> None:
        """Refine one partition. Of a file that is rejected already only the rows are counted."""
        self.rows_in += partition.rows_in
        self._misfits.update(misfit.reason for misfit in partition.misfits)
        if self._reasons:
            return
        refined = refine_partition(partition, self._plan, self._judge)
        if refined.judgement:
            self._states = merge_states(self._states, refined.judgement.states)
        self._judged_nulls.update(name for name in self._plan.columns if refined.frame[name].hasnans)
        if self._late:
            self._late.take(refined.frame)
        self._side.write(refined.frame, partition.row_numbers)
        self._part(partition, refined)

    def _part(self, partition: Partition, refined: Refined) -> None:
        for place in range(len(self._plan.row_rules)):
            self._broken[place] += int(has_bit(refined.bits, place).sum())
        bad = np.flatnonzero(refined.is_bad)
        self._bad.add(partition.row_numbers[bad], refined.bits[bad])
        self._quarantine.write(partition, bad, refined.bits[bad])
        good = ~refined.is_bad
        frame = refined.frame if not len(bad) else refined.frame[good]
        self._good.write(frame, partition.row_numbers[good])

    def finish(self) -> Validated:
        """Reach the verdict.

        Raises:
            FileRejected: an expectation cannot be judged on this file.
        """
        self.close()
        if not self._reasons:
            self._judge_expectations()
        quarantined = {**self._misfits, **self._bad.counts()}
        bad = sum(quarantined.values())
        self._check_rows()
        if not self._reasons:
            self._reasons += reasons_of_bad_rows(self._contract.bad_rows, bad, self.rows_in)
        if not self._reasons and self.rows_in != self._good.rows + bad:
            raise RowsUnaccounted(
                f"{self.rows_in} rows came in, {self._good.rows} are good and {bad} are bad; nothing is published"
            )
        return Validated(
            rows_in=self.rows_in,
            rows_good=0 if self._reasons else self._good.rows,
            quarantined=quarantined,
            checks=tuple(self._checks),
            rejected=tuple(self._reasons),
            good_path=None if self._reasons else self._good.path,
            quarantine_path=self._quarantine.path,
            columns_in=self._header.columns,
            kinds=self._plan.kinds,
            nulls=frozenset(self._good.nulls),
        )

    def close(self) -> None:
        """Close all files. May be called again."""
        for file in (self._good, self._side, self._quarantine):
            file.close()

    def _judge_expectations(self) -> None:
        if not self._judge or not self._late:
            return
        structure = self._plan.structure(self._header.columns, self._judged_nulls)
        late_rows: list[LateRows] = []
        for position, rule in enumerate(self._judge.rules):
            verdict, rows = self._late.verdict(position, self._states[position], structure)
            if len(rows):
                late_rows.append(LateRows(self._plan.places[rule.id], rows))
            self._checks.append(check_of(verdict))
            reason = reason_of(verdict)
            if reason:
                self._reasons.append(reason)
        if late_rows and not self._reasons:
            self._condemn(late_rows)

    def _condemn(self, late_rows: list[LateRows]) -> None:
        """Move rows that turn out to be bad only now. As they were is how the source has them: it is read again."""
        self._bad = self._bad.with_late([(late.row_rule, late.row_numbers) for late in late_rows])
        blocking = [late.row_numbers for late in late_rows if self._plan.row_rules[late.row_rule].blocking]
        if not blocking:
            return
        self._good = self._good.without(np.unique(np.concatenate(blocking)))
        self._quarantine = self._new_quarantine()
        for partition in self._reader.partitions():
            positions, bits = self._bad.of(partition.row_numbers)
            self._quarantine.write(partition, positions, bits)
        self._quarantine.close()

    def _check_rows(self) -> None:
        decoded = self.rows_in - self._misfits.total()
        for reason, rows in sorted(self._misfits.items()):
            self._checks.append(
                Check(
                    rule=reason,
                    expectation=reason,
                    column=None,
                    kind="decode",
                    severity="warning",
                    success=False,
                    rows_evaluated=self.rows_in,
                    rows_failing=rows,
                )
            )
        for place, rule in enumerate(self._plan.row_rules):
            if rule.expectation is None and self._broken[place]:
                self._checks.append(row_rule_check(rule, decoded, int(self._broken[place])))
