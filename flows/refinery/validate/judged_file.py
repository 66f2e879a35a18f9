"""Merge the validated partitions of a file. The results are the good rows, the files of bad rows, and the findings on
the whole file. Good rows are available as soon as no rule can reject them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.refinery.checks import Check, Decision, RejectionReason
from flows.refinery.contract.model import Contract, OutputOptions
from flows.refinery.output_files import FileSeries, OutputFile, TakeAway
from flows.refinery.part_seconds import PartSeconds
from flows.refinery.read.ahead import behind
from flows.refinery.read.decisions import decisions_of
from flows.refinery.read.partition import Partition
from flows.refinery.read.path_columns import Folders
from flows.refinery.validate.batch_spool import BatchSpool
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
from flows.refinery.validate.header_plan import HeaderPlan
from flows.refinery.validate.mark_hints import Texts, mark_hints
from flows.refinery.validate.quarantine import RULES, first_broken, quarantine_table
from flows.refinery.validate.rules import rules_of
from flows.refinery.validate.sorted_numbers import positions_of
from flows.refinery.validate.typed_rows import numbers_of
from flows.refinery.validate.whole_file_rules import WholeFileJudge

_IN_MEMORY_BYTES = 32 << 20  # of waiting rows


@dataclass(frozen=True)
class JudgedPartition:
    """The result of validating one partition. It can be pickled."""

    rows_in: int
    misfits: pa.RecordBatch  # rows that could not be decoded, from `misfit_rows`
    # the good rows in the contract's types. If rows may turn out to be bad only at the end of the file, it has all rows
    # instead, with the original values of `raw_columns` after the row numbers
    rows: pa.RecordBatch
    bad: pa.Table | None  # the bad rows and misfits, in the form of the quarantine file; None if `rows` has all rows
    # the numbers of the bad rows, without the misfits; if `rows` has all rows, of all rows that break a rule
    bad_numbers: np.ndarray
    bad_masks: np.ndarray  # an array of shape (row rules, bad_numbers), which is true where a row breaks a rule
    broken: np.ndarray  # for each row rule, the number of rows that break it
    no_numbers: dict[str, Texts]  # for each rule ID, some strings that should be numbers
    nulls: frozenset[str]  # the columns with missing or unconvertible values in good or bad rows
    # all rows, with the columns that rules need at the end of the file; None if there are no such rules, or if `rows`
    # has these columns
    whole_file_rows: pa.RecordBatch | None
    states: tuple[Any, ...]  # for each expectation, its mergeable state
    key_hashes: tuple[np.ndarray | None, ...]  # for each expectation, one hash per row if it is on uniqueness
    seconds: Mapping[str, float]  # for each part of the work, such as "write", the time spent on it


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The results of validating a whole file."""

    rows_in: int
    quarantined: dict[str, int]  # the number of bad rows, by the first rule that each of them broke
    checks: tuple[Check, ...]  # the result of each rule
    rejected: tuple[RejectionReason, ...]  # why the file is rejected; empty if it is accepted
    columns_in: tuple[str, ...] = ()  # the names of the file's columns
    decisions: tuple[Decision, ...] = ()  # how the file was read


class JudgedFile:
    """Merges the validated partitions of a file in their order, writes the bad rows, and yields the good rows.

    Args:
        folder: an existing folder for the quarantine files and for rows that wait until the end of the file.
        take_away: receives each full quarantine file.

    Attributes:
        is_rejected: whether the file is already rejected because of its columns.
        rows_in: the number of rows in the partitions merged so far.
        findings: the results for the whole file; None until all partitions are merged.
    """

    def __init__(
        self,
        contract: Contract,
        plan: HeaderPlan,
        folders: Folders,
        folder: Path,
        seconds: PartSeconds,
        take_away: TakeAway,
    ) -> None:
        self.rows_in = 0
        self.findings: Findings | None = None
        self._contract, self._plan, self._seconds, self._take_away = contract, plan, seconds, take_away
        self._checks, self._reasons = judge_columns(contract, plan, rules_of(contract))
        self._checks += [*sheet_checks(plan.source_format), *folder_checks(folders, contract)]
        self.is_rejected = bool(self._reasons)
        self._misfits: Counter[str] = Counter()
        self._quarantined: Counter[str] = Counter()
        self._broken = np.zeros(len(plan.row_rules), dtype=np.int64)
        self._no_numbers: defaultdict[str, Texts] = defaultdict(dict)
        self._nulls: set[str] = set()
        self._states: tuple[Any, ...] = (None,) * len(plan.judged)
        self._waiting = BatchSpool(folder / "waiting", memory_bytes=_IN_MEMORY_BYTES)
        self._waiting_misfits = BatchSpool(folder / "misfits", memory_bytes=_IN_MEMORY_BYTES)
        # For each waiting partition: the number of its last row, and the numbers and packed masks of `bad_numbers`.
        self._last_numbers: list[int] = []
        self._waiting_bad = BatchSpool(folder / "bad", memory_bytes=_IN_MEMORY_BYTES // 4)
        as_parquet = OutputOptions(max_file_bytes=contract.output.max_file_bytes)
        self._quarantine = FileSeries("quarantine", folder / "quarantine", "", as_parquet, take_away)
        kinds = plan.kinds if plan.waits else plan.whole_file_kinds
        judge = plan.judge if plan.whole_file_kinds else None
        self._whole_file = WholeFileJudge(judge, self._waiting, kinds, folder) if judge else None

    def quarantine(self) -> tuple[OutputFile, ...]:
        """Return the Parquet files with the bad rows (see quarantine.py), or none if there are no bad rows. Call this
        only after `good_rows` or `count` has ended."""
        with self._seconds.of("write"):
            return self._quarantine.finish()

    def count(self, partitions: Iterable[Partition]) -> None:
        """Count the rows of a file that is already rejected because of its columns, without checking them."""
        for partition in partitions:
            self.rows_in += partition.rows_in
            self._misfits.update(misfit.reason for misfit in partition.misfits)
        self.findings = self._findings()

    def good_rows(self, judged: Iterable[JudgedPartition], *, is_small: bool) -> Generator[pa.RecordBatch, None, None]:
        """Merge all partitions and yield their good rows. They are yielded after the last partition if rules on the
        whole file may still find bad rows, and immediately otherwise. If the rules reject the file at the end, some
        rows may already have been yielded.

        Args:
            is_small: whether the file is so small that a separate thread to write the bad rows is not worth its cost.

        Raises:
            FileRejected: an expectation cannot be checked on this file.
        """
        with behind(self._write_bad, is_small=is_small, abandon=self._take_away.abandon) as write_bad:
            with behind(self._keep, is_small=is_small, abandon=lambda: None) as keep:
                for one in judged:
                    with self._seconds.of("validate"):
                        self._take(one, write_bad, keep)
                    if not self._plan.waits:
                        yield one.rows
            with self._seconds.of("validate"):
                late_rows = self._judge_expectations()
                if self._plan.waits:
                    for _, masks in self._marked(late_rows):
                        self._quarantined.update(first_broken(masks, self._plan.row_rules))
                self.findings = self._findings()
            if self._plan.waits:
                yield from self._parted(late_rows, write_bad)

    def _keep(self, rows: pa.RecordBatch) -> None:
        with self._seconds.of("write"):
            self._waiting.append(rows)

    def _write_bad(self, rows: pa.Table) -> None:
        with self._seconds.of("write"):
            if rows.num_rows:
                self._quarantine.write(rows)

    def close(self) -> None:
        """Close the quarantine file and delete the waiting rows. May be called more than once."""
        self._quarantine.close()
        self._waiting.close()
        self._waiting_misfits.close()
        self._waiting_bad.close()

    def _take(
        self, one: JudgedPartition, write_bad: Callable[[pa.Table], None], keep: Callable[[pa.RecordBatch], None]
    ) -> None:
        self.rows_in += one.rows_in
        self._misfits.update(one.misfits.column(RULES).to_pylist())
        self._broken += one.broken
        for rule, texts in one.no_numbers.items():
            self._no_numbers[rule] |= texts
        self._nulls |= one.nulls
        self._states = merge_states(self._states, one.states)
        self._seconds.add(one.seconds)
        if self._whole_file:
            self._whole_file.take(one.key_hashes)
        with self._seconds.of("write"):
            if one.bad is not None:
                self._quarantined.update(first_broken(one.bad_masks, self._plan.row_rules))
                write_bad(one.bad)
            if one.whole_file_rows is not None:
                keep(one.whole_file_rows)
            if self._plan.waits:
                keep(one.rows)
                self._waiting_misfits.append(one.misfits)
                self._last_numbers.append(int(numbers_of(one.rows).max(initial=0)))
                bad = [pa.array(values) for values in (one.bad_numbers, *np.packbits(one.bad_masks, axis=0))]
                self._waiting_bad.append(pa.RecordBatch.from_arrays(bad, names=list(map(str, range(len(bad))))))

    # --- rows that waited ---------------------------------------------------------------------------------

    def _marked(self, late_rows: Mapping[int, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the bad rows of each waiting partition, once rules on the whole file have been checked.

        Args:
            late_rows: by the position of a rule in `row_rules`, the sorted numbers of the rows that were found to break
                it only at the end of the file.

        Yields:
            the sorted numbers of the bad rows, and their masks, an array of shape (row rules, bad rows).
        """
        rules, before = self._plan.row_rules, 0
        for last, bad_rows in zip(self._last_numbers, self._waiting_bad.batches(), strict=True):
            numbers, *packed = (column.to_numpy() for column in bad_rows.columns)
            late = {
                place: rows[slice(*np.searchsorted(rows, [before, last], side="right"))]
                for place, rows in late_rows.items()
            }
            before = max(before, last)
            bad = np.sort(np.concatenate([numbers, *(late[place] for place in late if rules[place].blocking)]))
            bad = bad[np.diff(bad, prepend=-1) > 0]
            masks = np.zeros((len(rules), len(bad)), dtype=bool)
            masks[:, np.searchsorted(bad, numbers)] = np.unpackbits(np.array(packed), axis=0, count=len(rules))
            for place, rows in late.items():
                masks[place, positions_of(rows, bad)] = True
            is_bad = masks[self._plan.blocking].any(axis=0)
            yield bad[is_bad], masks[:, is_bad]

    def _parted(
        self, late_rows: Mapping[int, np.ndarray], write_bad: Callable[[pa.Table], None]
    ) -> Iterator[pa.RecordBatch]:
        """Write the bad rows of the partitions that waited, and yield their good rows unless the file is rejected."""
        plan, is_rejected = self._plan, bool(self.findings and self.findings.rejected)
        typed = len(plan.kinds) + 1
        waiting = zip(self._waiting.drain(), self._waiting_misfits.drain(), self._marked(late_rows), strict=True)
        for rows, misfits, (numbers, masks) in waiting:
            places = positions_of(numbers, numbers_of(rows.select(range(typed))))
            with self._seconds.of("write"):
                bad = {name: rows.column(plan.raw_place(name)).take(pa.array(places)) for name in plan.file_columns}
                write_bad(quarantine_table(bad, numbers, masks, plan.row_rules, plan.file_columns, misfits))
            if not is_rejected:
                good = np.ones(rows.num_rows, dtype=bool)
                good[places] = False
                yield rows.select(range(typed)).filter(pa.array(good))

    # --- the verdict --------------------------------------------------------------------------------------

    def _judge_expectations(self) -> dict[int, np.ndarray]:
        """Add the checks and rejection reasons of all expectations. Return the sorted numbers of the rows that were
        found to be bad only at the end of the file, by the position of the rule in `row_rules`. Return an empty mapping
        if the file is rejected."""
        judge, late_rows = self._plan.judge, dict[int, np.ndarray]()
        if judge is None:
            return late_rows
        structure = self._plan.structure(self._nulls) if self._plan.asks_structure else pd.DataFrame()
        for position, (rule, state) in enumerate(zip(judge.rules, self._states, strict=True)):
            if self._whole_file and rule.is_late:
                verdict, rows = self._whole_file.verdict(position, state, structure)
                late_rows[self._plan.places[rule.id]] = rows
            else:
                verdict = judge.verdict(position, state, structure)
            self._checks.append(check_of(verdict))
            reason = reason_of(verdict)
            if reason:
                self._reasons.append(reason)
        return {} if self._reasons else late_rows

    def _findings(self) -> Findings:
        by_rule = {rule.id: self._quarantined[rule.id] for rule in self._plan.row_rules if rule.id in self._quarantined}
        quarantined = {**self._misfits, **by_rule}
        hints = self._check_rows()
        is_unread = sum(quarantined.values()) == self.rows_in and not any(
            rule.startswith("expect_") for rule in quarantined
        )
        reasons = self._reasons
        if not reasons or (is_unread and not self.is_rejected):
            # The bad rows are the cause of the rejection. The failed expectations are only a consequence.
            reasons = [*reasons_of_bad_rows(self._contract.bad_rows, quarantined, self.rows_in, hints), *reasons]
        found = self._plan.source_format
        if reasons:
            reasons = [*first_cause(reasons, found, self._misfits, self.rows_in), *reasons]
        return Findings(
            rows_in=self.rows_in,
            quarantined=quarantined,
            checks=tuple(self._checks),
            rejected=tuple(reasons),
            columns_in=self._plan.file_columns,
            decisions=decisions_of(found, self._contract),
        )

    def _check_rows(self) -> list[str]:
        """Add a check for each reason why rows could not be decoded, and for each rule on types or columns that rows
        broke. Return suggestions for the contract."""
        decoded = self.rows_in - self._misfits.total()
        for reason, rows in sorted(self._misfits.items()):
            self._checks.append(failed_check(reason, "decode", rows_evaluated=self.rows_in, rows_failing=rows))
        hints = mark_hints(self._no_numbers, self._plan.source_format)
        for rule, rows in zip(self._plan.row_rules, self._broken.tolist(), strict=True):
            if rows and not rule.is_expectation:
                self._checks.append(row_rule_check(rule, decoded, rows, hints.get(rule.id)))
        return sorted(set(hints.values()))
