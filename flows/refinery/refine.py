"""The `refine` stage, which turns an uploaded file into local files of good rows and bad rows.

One pure function, `refine_partition`, is mapped over the file's partitions, and the results are merged. Good rows are
preprocessed and written as they arrive. If the file is rejected later, their files are discarded. Rows wait only if a
rule or a step needs the whole file first, or if later rows may add a column or change the type of one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.refinery.check_contract import check_contract
from flows.refinery.checks import RejectionReason
from flows.refinery.contract.model import Contract
from flows.refinery.errors import FileRejected, SluiceError, TerminalError
from flows.refinery.freed_memory import returning_memory
from flows.refinery.output_files import LEAVE, OutputFile, TakeAway
from flows.refinery.part_seconds import ELSEWHERE, PartSeconds
from flows.refinery.preprocess.own_steps import OwnStep
from flows.refinery.preprocess.step_base import FittedStep, Step, StepFailed
from flows.refinery.preprocess.step_pipeline import StepPipeline
from flows.refinery.preprocess.steps import compile_steps
from flows.refinery.read.ahead import ahead, behind
from flows.refinery.read.formats import ROWS_PER_PARTITION, read_partitions
from flows.refinery.read.partition import Limits, Partition
from flows.refinery.read.partition_spool import PartitionSpool
from flows.refinery.read.path_columns import Folders, with_path_columns
from flows.refinery.read.remote_file import Source, size_of
from flows.refinery.repair.corrections import Corrections
from flows.refinery.validate.column_text import raw_array
from flows.refinery.validate.header_plan import Header, HeaderPlan
from flows.refinery.validate.judge_partition import TypedPartition, typed_partition, validate
from flows.refinery.validate.judged_file import Findings, JudgedFile, JudgedPartition
from flows.refinery.validate.mark_hints import no_numbers
from flows.refinery.validate.overlay import corrected
from flows.refinery.validate.quarantine import misfit_rows, quarantine_table
from flows.refinery.validate.rules import rules_of
from flows.refinery.validate.typed_rows import ROW_NUMBER, as_stepped, beside
from flows.refinery.write.outputs import OutputWriter

_SMALL_BYTES = 8 << 20

BY_REPAIR = "dropped_by_repair"
"""The key in `Refined.dropped` for the rows that a repair dropped."""

REJECTING = (FileRejected, StepFailed)
"""The errors that reject a file. Any other error has a cause outside the file."""

Progress = Callable[[str, int], None]
"""A function that is called with a part of the stage and the number of rows that this part has processed so far. The
part is `refine` if the rows need not wait; otherwise it is `validate` first and `preprocess` later."""

MapPartitions = Callable[
    [Callable[[TypedPartition], JudgedPartition], Iterable[TypedPartition]], Iterable[JudgedPartition]
]
"""The built-in `map`, or a similar function that keeps the order, such as the `map` of an executor. Memory is bounded
only if it does not read all partitions in advance."""


class _RejectedByRules(Exception):
    """The rules reject the file; the findings contain the reasons."""


class RowsUnaccounted(SluiceError):
    """Some rows are neither published, quarantined nor dropped, which is a bug in Sluice. Nothing is published."""


@dataclass(frozen=True, kw_only=True)
class Refined(Findings):
    """The result of the `refine` stage for one file."""

    rows_published: int
    # for each step, or BY_REPAIR, the number of rows that it dropped; if the file is rejected, `file_rejected` has all
    # rows
    dropped: dict[str, int]
    # the files with the clean rows, which are local unless `take_away` deleted them; empty if the file is rejected
    outputs: tuple[OutputFile, ...]
    quarantine: tuple[OutputFile, ...]  # the files with the bad rows, local like `outputs`; empty if there are none
    fitted: dict[str, Any]  # for each step, its parameters as JSON values, learned or from the contract
    columns_out: tuple[str, ...] = ()  # the columns that were written
    # the time spent in each part (read, validate, preprocess, write), summed over threads and processes
    seconds: Mapping[str, float] = field(default_factory=dict)


def refine_file(
    source: Source,
    contract: Contract,
    work_dir: Path,
    *,
    folders: Folders = (),
    corrections: Corrections | None = None,
    on_progress: Progress | None = None,
    take_away: TakeAway = LEAVE,
    limits: Limits = Limits(),
    rows_per_partition: int = ROWS_PER_PARTITION,
    map_partitions: MapPartitions = map,
) -> Refined:
    """Read, validate and preprocess a file, and write the results to local files, in bounded memory.

    Args:
        source: the uploaded file, as a local copy or in S3.
        work_dir: an existing folder for the output files.
        folders: the folders in the object key that may become columns, as `folders_of` returns them.
        corrections: the values that repairs changed and the rows that they dropped, if there were any.
        take_away: receives each output file that is finished early.
        map_partitions: applies `refine_partition` to every partition, in this process or in others.

    Returns:
        the result, also for a file that the rules reject, or whose good rows cannot be preprocessed or written.

    Raises:
        FileRejected: the file cannot be read or validated at all; there is one subclass per cause.
        ContractInvalid: an expectation or a step of the contract cannot be used.
        StepsNotImportable: the dataset's steps.py cannot be imported.
        CorrectionsUnusable: the corrections do not match the file.
    """
    check_contract(contract)
    seconds, size, report = PartSeconds(), size_of(source), on_progress or (lambda _part, _rows: None)
    is_small = size <= _SMALL_BYTES

    found = read_partitions(source, contract, rows_per_partition=rows_per_partition, limits=limits)
    found = with_path_columns(found, contract, folders)
    dropped = 0 if corrections is None else len(corrections.dropped)  # no rule and no step sees these
    found = found if corrections is None else corrected(found, corrections, contract, limits)
    with ExitStack() as stack:
        read = stack.enter_context(ahead(seconds.inside("read", found), is_small=is_small))
        unjudged = stack.enter_context(closing(PartitionSpool(work_dir / "unjudged")))
        header, partitions = Header.of_file(read, contract, unjudged)
        plan = HeaderPlan.of(contract, rules_of(contract), header)
        partitions = _cut(partitions, limits.max_partition_cells // max(1, len(header.columns)))

        judged = stack.enter_context(closing(JudgedFile(contract, plan, folders, work_dir, seconds, take_away)))
        if judged.is_rejected:
            judged.count(partitions)
            return _rejected(judged, dropped, seconds)
        typed = stack.enter_context(ahead(_typed(partitions, plan, seconds), is_small=is_small))
        # Expectations are checked in the calling thread. In a task, this is the main thread, so the time limit can stop
        # a regular expression that backtracks for hours. In any other thread, the expression would hold the GIL.
        validated = returning_memory(map_partitions(partial(refine_partition, plan=plan), typed))
        part = "validate" if plan.waits else "refine"
        reported = _reported(seconds.inside(ELSEWHERE, validated), partial(report, part))
        good = stack.enter_context(closing(judged.good_rows(reported, is_small=is_small)))
        try:
            with seconds.of("preprocess"):
                steps = compile_steps(contract)
                pipeline = stack.enter_context(
                    closing(StepPipeline(_frames(good, judged, plan, report), plan.kinds, work_dir))
                )
                for step in steps:
                    pipeline.add(step)
            with OutputWriter(contract.output, work_dir, pipeline.kinds, seconds, take_away) as writer:
                with behind(writer.write, is_small=is_small, abandon=take_away.abandon) as write:
                    for frame in seconds.inside("preprocess", pipeline.frames()):
                        write(frame)
                outputs = writer.close()
        except (_RejectedByRules, *REJECTING) as error:
            for _ in good:  # finish validation, because a rejection by the rules takes precedence
                pass
            if judged.findings is None:
                raise
            return _rejected(judged, dropped, seconds, error)
        return _accepted(judged, dropped, pipeline, steps, writer.columns, outputs, seconds)


def _cut(partitions: Iterator[Partition], rows: int) -> Iterator[Partition]:
    for partition in partitions:
        yield from partition.cut(max(1, rows))


def _typed(partitions: Iterator[Partition], plan: HeaderPlan, seconds: PartSeconds) -> Iterator[TypedPartition]:
    for partition in partitions:
        with seconds.of("validate"):
            typed = typed_partition(partition, plan)
        del partition
        yield typed
        del typed


def _reported(judged: Iterator[JudgedPartition], report: Callable[[int], None]) -> Iterator[JudgedPartition]:
    rows = 0
    for one in judged:
        yield one
        rows += one.rows_in
        report(rows)


def _frames(
    good: Iterator[pa.RecordBatch], judged: JudgedFile, plan: HeaderPlan, report: Progress
) -> Iterator[pd.DataFrame]:
    """Yield the good rows as DataFrames for the steps. Only the first DataFrame may be empty. If the rules reject the
    file, raise _RejectedByRules after the last DataFrame."""
    rows, is_first = 0, True
    for batch in good:
        if batch.num_rows or is_first:
            yield as_stepped(batch, plan.kinds, plan.nullable)
        is_first = False
        rows += batch.num_rows
        if plan.waits:
            report("preprocess", rows)
    if judged.findings and judged.findings.rejected:
        raise _RejectedByRules


def _accepted(
    judged: JudgedFile,
    dropped: int,
    pipeline: StepPipeline,
    steps: Sequence[Step | OwnStep],
    columns: tuple[str, ...],
    outputs: tuple[OutputFile, ...],
    seconds: PartSeconds,
) -> Refined:
    findings = vars(judged.findings)
    refined = Refined(
        **{**findings, "rows_in": findings["rows_in"] + dropped},
        rows_published=sum(output.rows for output in outputs),
        dropped={label: rows for label, rows in {BY_REPAIR: dropped, **pipeline.dropped}.items() if rows},
        outputs=outputs,
        quarantine=judged.quarantine(),
        fitted={step.label: step.fitted for step in steps if isinstance(step, FittedStep) and step.fitted},
        columns_out=columns,
        seconds=dict(seconds),
    )
    bad, less = sum(refined.quarantined.values()), sum(refined.dropped.values())
    if refined.rows_in != refined.rows_published + bad + less:
        raise RowsUnaccounted(
            f"{refined.rows_in} rows came in, but {refined.rows_published} would be published, {bad} quarantined"
            f" and {less} dropped; nothing is published"
        )
    return refined


def _rejected(judged: JudgedFile, dropped: int, seconds: PartSeconds, error: Exception | None = None) -> Refined:
    """Return the result for a rejected file: either the rules rejected it, or an error occurred while its good rows
    were preprocessed or written."""
    findings = vars(judged.findings)
    rows = findings["rows_in"] + dropped
    findings = {**findings, "rows_in": rows}
    if isinstance(error, TerminalError) and not findings["rejected"]:
        findings = {**findings, "rejected": (RejectionReason.of(error),)}
    return Refined(
        **findings,
        rows_published=0,
        dropped={"file_rejected": rows} if rows else {},
        outputs=(),
        quarantine=judged.quarantine(),
        fitted={},
        seconds=dict(seconds),
    )


def refine_partition(partition: TypedPartition, plan: HeaderPlan) -> JudgedPartition:
    """Validate one partition, and return its good and bad rows (not yet separated if the plan waits), and the findings.

    The result depends only on the arguments. Arguments and result can be pickled, so the function works in the same
    way in this process, in a worker process or on a Dask worker.

    Raises:
        FileRejected: an expectation cannot be checked on these rows.
    """
    seconds = PartSeconds()
    with seconds.of("validate"):
        masks, findings = validate(partition, plan)
        read, typed = partition.read, partition.rows
        numbers, misfits = read.row_numbers, misfit_rows(read.misfits)
        is_bad = np.zeros(masks.shape[1], dtype=bool)
        for place in plan.blocking:
            is_bad |= masks[place]
        places = np.flatnonzero(is_bad)
        rows, bad, late = typed, None, None
    with seconds.of("write"):
        if plan.waits:
            has_all = set(plan.raw_columns) <= set(read.frame.columns)
            raw = read.frame if has_all else read.frame.reindex(columns=plan.raw_columns)
            places = np.flatnonzero(masks.any(axis=0))  # a row that only an info rule marks may turn out to be bad
            rows = beside(typed, {name: raw_array(raw[name]) for name in plan.raw_columns})
        else:
            values = {str(name): raw_array(values) for name, values in read.frame.iloc[places].items()}
            bad = quarantine_table(
                values, numbers[places], masks[:, places], plan.row_rules, plan.file_columns, misfits
            )
            rows = typed.filter(pa.array(~is_bad)) if len(places) else typed
            late = typed.select([*plan.whole_file_kinds, ROW_NUMBER]) if plan.whole_file_kinds else None
    return JudgedPartition(
        rows_in=read.rows_in,
        misfits=misfits,
        rows=rows,
        bad=bad,
        bad_numbers=numbers[places],
        bad_masks=masks[:, places],
        broken=np.array([np.count_nonzero(mask) for mask in masks], dtype=np.int64),
        no_numbers=no_numbers(read, plan.row_rules, masks),
        nulls=frozenset(name for name in plan.columns if typed.column(name).null_count),
        whole_file_rows=late,
        states=tuple(finding.state for finding in findings),
        key_hashes=tuple(finding.key_hashes for finding in findings),
        seconds=dict(seconds),
    )
