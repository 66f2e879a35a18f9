"""The stage `refine`: from a local file to the files that will be published and quarantined.

One pure function, `refine_partition`, is mapped over the file's partitions, and the results are merged. Rules and steps
that need the whole file work on the merged rows.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.refinery.check_contract import check_contract
from flows.refinery.checks import Check, Decision, RejectionReason
from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.contract.model import Contract
from flows.refinery.errors import FileRejected, SluiceError, TerminalError
from flows.refinery.preprocess.step_base import FittedStep, StepFailed
from flows.refinery.preprocess.step_pipeline import StepPipeline
from flows.refinery.preprocess.steps import compile_steps
from flows.refinery.read.ahead import ahead
from flows.refinery.read.decisions import decisions_of
from flows.refinery.read.formats import ROWS_PER_PARTITION, read_partitions
from flows.refinery.read.partition import Limits, Partition, SourceFormat
from flows.refinery.read.partition_spool import PartitionSpool
from flows.refinery.read.path_columns import Folders, with_path_columns
from flows.refinery.read.remote_file import Source, size_of
from flows.refinery.repair.corrections import Corrections
from flows.refinery.validate.arrow_spool import ArrowSpool, to_batch
from flows.refinery.validate.checks_of_rules import (
    check_of,
    failed_check,
    first_cause,
    folder_checks,
    judge_columns,
    reason_of,
    reasons_of_bad_rows,
    row_rule_check,
    sheet_checks,
)
from flows.refinery.validate.expectations import merge_states
from flows.refinery.validate.header_plan import Header, HeaderPlan
from flows.refinery.validate.judge_partition import validate
from flows.refinery.validate.mark_hints import mark_hints
from flows.refinery.validate.overlay import corrected
from flows.refinery.validate.quarantine import QuarantineFile, first_broken, quarantine_table
from flows.refinery.validate.rules import Method, rules_of
from flows.refinery.validate.sorted_numbers import positions_of
from flows.refinery.validate.whole_file_rules import WholeFileJudge
from flows.refinery.write.outputs import OutputFile, OutputWriter, output_file

_T = TypeVar("_T")
_SMALL_BYTES, _LARGE_BYTES = 8 << 20, 1 << 30
_FEW_ROWS = 50_000

REJECTING = (FileRejected, ContractInvalid, StepFailed)
"""The errors that reject a file. Any other is not the file's fault."""

Progress = Callable[[str, int], None]
"""Called with the part of the stage (validate, preprocess) and the rows that it has processed so far."""

MapPartitions = Callable[[Callable[[Partition], "RefinedPartition"], Iterable[Partition]], Iterable["RefinedPartition"]]
"""The built-in `map`, or a function like it that keeps the order, such as an executor's. Memory is bounded only if it
does not read all partitions ahead."""


class RowsUnaccounted(SluiceError):
    """Some rows are neither published, quarantined nor dropped: a bug in Sluice. Nothing may be published."""


@dataclass(frozen=True)
class Refined:
    """A file after read, validate, preprocess and write.

    Attributes:
        quarantined: bad rows by the first rule that each broke.
        dropped: rows by the step that dropped them; all under file_rejected when the file is rejected.
        checks: what every rule found.
        rejected: why the file is rejected; empty when it is accepted.
        outputs: the clean rows, as local files; empty when the file is rejected.
        quarantine: the bad rows, as a local file; None when there are none.
        fitted: by step, what it learned, as JSON values.
        columns_out: the columns that were written.
        decisions: how the file was read.
        seconds: by part (read, validate, preprocess, write), the time spent in it; summed over worker processes.
    """

    rows_in: int
    rows_published: int
    quarantined: dict[str, int]
    dropped: dict[str, int]
    checks: tuple[Check, ...]
    rejected: tuple[RejectionReason, ...]
    outputs: tuple[OutputFile, ...]
    quarantine: OutputFile | None
    fitted: dict[str, Any]
    columns_out: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def refine_file(
    source: Source,
    contract: Contract,
    work_dir: Path,
    *,
    folders: Folders = (),
    corrections: Corrections | None = None,
    on_progress: Progress | None = None,
    on_judged: OnJudged | None = None,
    limits: Limits = Limits(),
    rows_per_partition: int = ROWS_PER_PARTITION,
    map_partitions: MapPartitions = map,
) -> Refined:
    """Read, validate, preprocess and write a file, in bounded memory.

    Args:
        source: the object version: a local copy of it, or the file in S3.
        work_dir: an existing folder for the files that this writes.
        folders: those of the file's key that may become columns (`folders_of`).
        corrections: values that repairs put into some rows.
        on_judged: called with the judged file, before its good rows are preprocessed.
        map_partitions: applies `refine_partition` to every partition, in this process or in others.

    A file whose good rows cannot be preprocessed or written is rejected; the findings on its rows are kept.

    Raises:
        FileRejected: the file cannot be read or judged at all; one subclass per cause.
        ContractInvalid: an expectation or a step's arguments cannot be used.
        CorrectionsUnusable: the corrections do not fit the file.
    """
    check_contract(contract)
    judged = judge_file(
        source,
        contract,
        work_dir,
        folders=folders,
        corrections=corrections,
        on_progress=on_progress,
        limits=limits,
        rows_per_partition=rows_per_partition,
        map_partitions=map_partitions,
    )
    if on_judged:
        on_judged(judged)
    try:
        return preprocess_file(judged, contract, work_dir, on_progress=on_progress)
    except REJECTING as error:
        rejected = replace(judged, rejected=(RejectionReason.of(error),), good=None, quarantine_path=None)
        return preprocess_file(rejected, contract, work_dir)


# --- one partition ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RefinedPartition:
    """The result of one partition. It can be pickled and merged.

    Attributes:
        misfits: rows that could not be decoded, by reason.
        good: the good rows; all rows, if more of them may turn out to be bad at the end of the file.
        bad: the bad rows and misfits, as in the quarantine file; None if there are none, or in the same case.
        bad_numbers: the numbers of the bad rows, without the misfits.
        bad_masks: row rules x bad rows; true where a row breaks the rule.
        broken: by row rule, the rows that break it.
        nulls: the columns that hold missing values, in good or bad rows.
        whole_file_rows: all rows, with only the columns that rules need at the end of the file.
        states: by expectation, its mergeable state.
        key_hashes: by expectation, the hashes of a uniqueness rule's keys.
        seconds: by part, the time spent in it.
    """

    rows_in: int
    misfits: Counter[str]
    good: pa.RecordBatch
    bad: pa.Table | None
    bad_numbers: np.ndarray
    bad_masks: np.ndarray
    broken: np.ndarray
    nulls: frozenset[str]
    whole_file_rows: pa.RecordBatch
    states: tuple[Any, ...]
    key_hashes: tuple[np.ndarray | None, ...]
    seconds: Mapping[str, float]


def refine_partition(partition: Partition, plan: HeaderPlan) -> RefinedPartition:
    """Judge one partition, and return its good and bad rows in the form in which they are written.

    It depends only on its arguments. They and the result can be pickled, so it works the same in this process, in a
    worker process or on a Dask worker. The contract's steps run after all partitions are merged, because the verdict on
    the file decides which rows they get, if any.

    Raises:
        FileRejected: an expectation cannot be judged on these rows.
    """
    seconds = _Seconds()
    with seconds.of("validate"):
        frame, masks, findings = validate(partition, plan)
        numbers = partition.row_numbers
        good = ~masks[plan.blocking].any(axis=0)
        bad = np.flatnonzero(~good)
        bad_masks = masks[:, bad]
    with seconds.of("write"):
        is_parted = len(bad) and not plan.waits
        good_rows = to_batch(frame[good] if is_parted else frame, numbers[good] if is_parted else numbers, plan.kinds)
        bad_rows = None
        if not plan.waits:
            bad_rows = quarantine_table(partition, bad, bad_masks, plan.row_rules, plan.file_columns)
        whole_file_rows = to_batch(frame, numbers, plan.whole_file_kinds)
    refined = RefinedPartition(
        rows_in=partition.rows_in,
        misfits=Counter(misfit.reason for misfit in partition.misfits),
        good=good_rows,
        bad=bad_rows,
        bad_numbers=numbers[bad],
        bad_masks=bad_masks,
        broken=masks.sum(axis=1),
        nulls=frozenset(name for name in plan.columns if frame[name].hasnans),
        whole_file_rows=whole_file_rows,
        states=tuple(finding.state for finding in findings),
        key_hashes=tuple(finding.key_hashes for finding in findings),
        seconds=dict(seconds),
    )
    del frame, findings
    gc.collect()  # GX's graphs are cyclic: without this a partition's frames pile up
    return refined


class _Seconds(dict[str, float]):
    """Seconds by part of the stage; an error that ends a part gets the part's name."""

    def add(self, others: Mapping[str, float]) -> None:
        """Add seconds that were counted elsewhere."""
        for part, seconds in others.items():
            self[part] = self.get(part, 0.0) + seconds

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the time inside the block."""
        start = time.perf_counter()
        try:
            yield
        except TerminalError as error:
            error.part = error.part or part
            raise
        finally:
            self.add({part: time.perf_counter() - start})

    def inside(self, part: str, items: Iterator[_T]) -> Iterator[_T]:
        """Yield the same items, and count the time that producing each one takes."""
        while True:
            with self.of(part):
                item = next(items, None)
            if item is None:
                return
            yield item


# --- the whole file ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JudgedFile:
    """A file that was decoded, coerced and judged.

    Attributes:
        quarantined: bad rows by the first rule that each broke.
        rejected: why the file is rejected; empty when it is accepted.
        good: the good rows; None for a rejected file.
        quarantine_path: the bad rows (Parquet, see quarantine.py); None when there are none.
        columns_in: the file's columns.
        decisions: how the file was read.
        seconds: by part, the time spent in it.
    """

    rows_in: int
    quarantined: dict[str, int]
    checks: tuple[Check, ...]
    rejected: tuple[RejectionReason, ...]
    good: ArrowSpool | None
    quarantine_path: Path | None
    columns_in: tuple[str, ...]
    decisions: tuple[Decision, ...]
    seconds: Mapping[str, float]


OnJudged = Callable[[JudgedFile], None]


class _HeaderGrew(Exception):
    """A later partition has a new column, or widens the type of a column that the contract does not name."""

    def __init__(self, header: Header) -> None:
        super().__init__()
        self.header = header


def judge_file(
    source: Source,
    contract: Contract,
    work_dir: Path,
    *,
    folders: Folders = (),
    corrections: Corrections | None = None,
    on_progress: Progress | None = None,
    limits: Limits = Limits(),
    rows_per_partition: int = ROWS_PER_PARTITION,
    map_partitions: MapPartitions = map,
) -> JudgedFile:
    """Read and validate a file: the first half of `refine`, for callers that need the findings but no outputs."""

    def read(rows: int) -> Iterator[Partition]:
        found = read_partitions(source, contract, rows_per_partition=rows, limits=limits)
        found = with_path_columns(found, contract, folders)
        return found if corrections is None else corrected(found, corrections, contract, limits)

    header, seconds = Header(), _Seconds()
    size = size_of(source)
    while True:
        # A later partition's columns are added to all of them.
        rows = max(1, min(rows_per_partition, limits.max_partition_cells // max(1, len(header.columns))))
        with ahead(seconds.inside("read", read(rows)), is_small=size <= _SMALL_BYTES) as partitions:
            first = next(partitions)
            header = header.joined(first, contract)
            found = first.source_format
            merge = _Merge(contract, header, work_dir, seconds, found, folders, is_large=size > _LARGE_BYTES)
            same = _with_header(header, chain([first], partitions), contract)
            del first
            try:
                if merge.reasons:
                    merges = map(merge.count, same)
                else:
                    refined = map_partitions(partial(refine_partition, plan=merge.plan), map(merge.keep, same))
                    merges = map(merge.take, refined)
                for _ in merges:
                    if on_progress:
                        on_progress("validate", merge.rows_in)
                return merge.finish()
            except _HeaderGrew as grown:
                header = grown.header  # the schema of the whole file: a second pass cannot raise this again
            finally:
                merge.forget()


def _with_header(header: Header, partitions: Iterator[Partition], contract: Contract) -> Iterator[Partition]:
    for partition in partitions:
        grown = header.joined(partition, contract)
        if grown != header:
            for later in partitions:
                grown = grown.joined(later, contract)
            raise _HeaderGrew(grown)
        yield partition


class _Merge:
    """The partitions of a file, merged, and the verdict at its end."""

    def __init__(
        self,
        contract: Contract,
        header: Header,
        work_dir: Path,
        seconds: _Seconds,
        found: SourceFormat,
        folders: Folders,
        *,
        is_large: bool,
    ) -> None:
        self.rows_in = 0
        self._contract, self._seconds = contract, seconds
        rules = rules_of(contract)
        self.plan = plan = HeaderPlan.of(contract, rules, header)
        self._checks, self.reasons = judge_columns(contract, plan, rules)
        self._checks += [*sheet_checks(found), *folder_checks(folders, contract)]
        self._found = found
        self._misfits: Counter[str] = Counter()
        self._quarantined: Counter[str] = Counter()
        self._broken = np.zeros(len(plan.row_rules), dtype=np.int64)
        self._bad_rows: list[tuple[np.ndarray, np.ndarray]] = []  # by partition their numbers, and packed masks
        self._nulls: set[str] = set()
        self._states: tuple[Any, ...] = (None,) * len(plan.judged)
        self._waiting = PartitionSpool(work_dir / "waiting")
        self._good = ArrowSpool(work_dir / "good.arrow", plan.kinds, is_large=is_large)
        self._quarantine = QuarantineFile(work_dir / "quarantine.parquet")
        late = plan.judge if plan.whole_file_kinds and not self.reasons else None
        path, kinds = work_dir / "late.arrow", plan.whole_file_kinds
        self._whole_file = WholeFileJudge(late, path, kinds, is_large=is_large) if late else None

    def count(self, partition: Partition) -> None:
        """Count the rows of a file that is rejected already."""
        self.rows_in += partition.rows_in
        self._misfits.update(misfit.reason for misfit in partition.misfits)

    def keep(self, partition: Partition) -> Partition:
        """Keep a partition where its rows may turn out to be bad later, as they are in the file."""
        if self.plan.waits:
            with self._seconds.of("write"):
                self._waiting.append(partition)
        return partition

    def take(self, refined: RefinedPartition) -> None:
        """Merge the next partition."""
        self.rows_in += refined.rows_in
        self._misfits.update(refined.misfits)
        if not self.plan.waits:
            self._quarantined.update(first_broken(refined.bad_masks, self.plan.row_rules))
        self._broken += refined.broken
        self._nulls |= refined.nulls
        self._states = merge_states(self._states, refined.states)
        self._seconds.add(refined.seconds)
        with self._seconds.of("write"):
            self._good.write(refined.good)
            self._quarantine.write(refined.bad)
            if self._whole_file:
                self._whole_file.take(refined.whole_file_rows, refined.key_hashes)
            if self.plan.waits:
                self._bad_rows.append((refined.bad_numbers, np.packbits(refined.bad_masks, axis=0)))

    def close(self) -> None:
        """Close all files. More than one call is allowed."""
        self._good.close()
        self._quarantine.close()
        if self._whole_file:
            self._whole_file.close()

    def forget(self) -> None:
        """Delete what waits."""
        self.close()
        self._waiting.close()

    def finish(self) -> JudgedFile:
        """Reach the verdict.

        Raises:
            FileRejected: an expectation cannot be judged on this file.
        """
        self.close()
        with self._seconds.of("validate"):
            is_judged = not self.reasons
            if is_judged:
                self._judge_expectations()
        by_rule = {rule.id: self._quarantined[rule.id] for rule in self.plan.row_rules if rule.id in self._quarantined}
        quarantined = {**self._misfits, **by_rule}
        hints = self._check_rows()
        is_unread = sum(quarantined.values()) == self.rows_in and not any(
            rule.startswith("expect_") for rule in quarantined
        )
        if not self.reasons or (is_judged and is_unread):
            # What follows from there being no row comes after the cause.
            self.reasons[:0] = reasons_of_bad_rows(self._contract.bad_rows, quarantined, self.rows_in, hints)
        if self.reasons:
            self.reasons = [*first_cause(self.reasons, self._found, self._misfits, self.rows_in), *self.reasons]
        return JudgedFile(
            rows_in=self.rows_in,
            quarantined=quarantined,
            checks=tuple(self._checks),
            rejected=tuple(self.reasons),
            good=None if self.reasons else self._good,
            quarantine_path=self._quarantine.path if self._quarantine.has_rows else None,
            columns_in=self.plan.file_columns,
            decisions=decisions_of(self._found, self._contract),
            seconds=dict(self._seconds),
        )

    def _judge_expectations(self) -> None:
        judge = self.plan.judge
        if judge is None:
            return
        asks_structure = any(rule.method is Method.STRUCTURE for rule in judge.rules)
        structure = self.plan.structure(self._nulls) if asks_structure else pd.DataFrame()
        late_rows: dict[int, np.ndarray] = {}
        for position, rule in enumerate(judge.rules):
            state = self._states[position]
            if self._whole_file and rule.is_late:
                verdict, rows = self._whole_file.verdict(position, state, structure)
                if len(rows):
                    late_rows[self.plan.places[rule.id]] = rows
            else:
                verdict = judge.verdict(position, state, structure)
            self._checks.append(check_of(verdict))
            reason = reason_of(verdict)
            if reason:
                self.reasons.append(reason)
        if self.plan.waits:
            self._quarantine_rows({} if self.reasons else late_rows)

    def _quarantine_rows(self, late_rows: Mapping[int, np.ndarray]) -> None:
        """Part the waiting rows, now that all bad ones are known.

        Args:
            late_rows: by row rule, the numbers of the rows that break it as the whole file shows.
        """
        plan = self.plan
        blocking = [numbers for place, numbers in late_rows.items() if plan.row_rules[place].blocking]
        late_rows = late_rows if blocking else {}
        bad = np.concatenate([*blocking, *(numbers for numbers, _ in self._bad_rows)])
        if len(bad) and not self.reasons:
            self._good.exclude(np.unique(bad))
        with ahead(self._bad_rows_of(late_rows), is_small=self.rows_in <= _FEW_ROWS) as tables:
            for table in tables:
                self._quarantine.write(table)
        self._quarantine.close()

    def _bad_rows_of(self, late_rows: Mapping[int, np.ndarray]) -> Iterator[pa.Table]:
        """Yield the bad rows of the waiting partitions, as they are quarantined."""
        rules = self.plan.row_rules
        for partition, (numbers, packed) in zip(self._waiting.drain(), self._bad_rows, strict=True):
            masks = np.zeros((len(rules), len(partition.frame)), dtype=bool)
            known = np.unpackbits(packed, axis=0, count=len(masks)).astype(bool)
            masks[:, np.searchsorted(partition.row_numbers, numbers)] = known
            for place, late in late_rows.items():
                masks[place, positions_of(late, partition.row_numbers)] = True
            bad = np.flatnonzero(masks[self.plan.blocking].any(axis=0))
            self._quarantined.update(first_broken(masks[:, bad], rules))
            table = quarantine_table(partition, bad, masks[:, bad], rules, self.plan.file_columns)
            if table is not None:
                yield table

    def _check_rows(self) -> list[str]:
        """Add the checks that rows failed, and return what to write into the contract where that is known."""
        decoded = self.rows_in - self._misfits.total()
        for reason, rows in sorted(self._misfits.items()):
            self._checks.append(failed_check(reason, "decode", rows_evaluated=self.rows_in, rows_failing=rows))
        broken = [
            (rule, int(self._broken[place]))
            for place, rule in enumerate(self.plan.row_rules)
            if self._broken[place] and not rule.is_expectation
        ]
        hints = mark_hints(self._quarantine.path, [rule.id for rule, _ in broken], self._found) if broken else {}
        self._checks += [row_rule_check(rule, decoded, rows, hints.get(rule.id)) for rule, rows in broken]
        return sorted(set(hints.values()))


# --- the good rows ----------------------------------------------------------------------------------------------------


def preprocess_file(
    judged: JudgedFile, contract: Contract, work_dir: Path, *, on_progress: Progress | None = None
) -> Refined:
    """Apply the contract's steps to a file's good rows and write the outputs: the second half of `refine`.

    Raises:
        StepFailed: a step cannot be applied to these rows.
        OutputImpossible: the rows cannot be split by the contract's output.partition_by.
        ContractInvalid: a step's arguments are wrong.
    """
    seconds = _Seconds(judged.seconds)
    report = on_progress or (lambda _part, _rows: None)
    columns: tuple[str, ...] = ()
    outputs: tuple[OutputFile, ...] = ()
    fitted: dict[str, Any] = {}
    dropped = {"file_rejected": judged.rows_in} if judged.rejected and judged.rows_in else {}
    quarantine = None
    if judged.quarantine_path:
        with seconds.of("write"):
            quarantine = output_file(judged.quarantine_path, "", sum(judged.quarantined.values()), ".parquet")
    if judged.good is not None:
        pipeline = StepPipeline(judged.good, work_dir / "steps", partial(report, "preprocess"))
        with seconds.of("preprocess"):
            steps = compile_steps(contract)
            for step in steps:
                pipeline.add(step)
        writer = OutputWriter(contract.output, work_dir, pipeline.kinds)
        with ahead(seconds.inside("preprocess", pipeline.frames()), is_small=judged.rows_in <= _FEW_ROWS) as frames:
            for frame in frames:
                with seconds.of("write"):
                    writer.write(frame)
                columns = tuple(map(str, frame.columns))
        with seconds.of("write"):
            outputs = writer.close()
        pipeline.close()
        dropped = {label: rows for label, rows in pipeline.dropped.items() if rows}
        fitted = {step.label: step.fitted for step in steps if isinstance(step, FittedStep) and step.fitted}
    refined = Refined(
        rows_in=judged.rows_in,
        rows_published=sum(output.rows for output in outputs),
        quarantined=judged.quarantined,
        dropped=dropped,
        checks=judged.checks,
        rejected=judged.rejected,
        outputs=outputs,
        quarantine=quarantine,
        fitted=fitted,
        columns_out=columns,
        decisions=judged.decisions,
        seconds=dict(seconds),
    )
    bad, less = sum(judged.quarantined.values()), sum(dropped.values())
    if not refined.rejected and refined.rows_in != refined.rows_published + bad + less:
        raise RowsUnaccounted(
            f"{refined.rows_in} rows came in, but {refined.rows_published} are published, {bad} quarantined"
            f" and {less} dropped; nothing is published"
        )
    return refined
