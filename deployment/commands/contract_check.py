"""`sluice contract check`: checks a file against a contract, on this machine."""

import resource
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployment import PROJECT_ROOT
from deployment.aws.task_disk import disk_warning
from deployment.aws.templates import default_parameters
from deployment.commands.progress import shown_after_a_second
from deployment.commands.user_paths import written_to
from flows.refinery.check_contract import check_contract
from flows.refinery.checks import Check, by_basis
from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError
from flows.refinery.preprocess.own_steps import OwnStep
from flows.refinery.preprocess.steps import compile_steps
from flows.refinery.read.byte_source import open_bytes
from flows.refinery.read.partition import Limits
from flows.refinery.read.path_columns import folders_of
from flows.refinery.read.rejections import EncodingUnknown
from flows.refinery.refine import Refined, refine_file
from flows.refinery.validate.quarantine import RAW, ROW_NUMBER, RULES, VALUES
from flows.refinery.words import shortened

_EXAMPLES = 3
_MAX_CELL = 60  # characters
_READ_BYTES = 1 << 20
_QUARANTINE_BATCH_ROWS = 10_000
_TEMPLATE = PROJECT_ROOT / "deployment" / "aws" / "template.yaml"
# How many bytes of memory any file takes, and how many each byte of a file takes if a step needs all rows at once,
# measured with 12 columns (docs/performance.md). Files in other formats, such as compressed ones, are estimated like
# Parquet files.
_FIXED_GROWTH_BYTES = 100 * 10**6
_WHOLE_TABLE_FACTORS = {".csv": 2.8, ".json": 1.0, ".jsonl": 1.0}
_WHOLE_TABLE_FACTOR_PACKED = 6.6
_LEAST_GROWTH_BYTES = 200 * 10**6  # below this, the measured factors are more accurate than the file's own growth


@dataclass(frozen=True)
class Checked:
    """The result of checking a file against a contract."""

    refined: Refined | None  # None if the file cannot be read or validated
    reasons: tuple[str, ...]  # why the file is rejected; empty if it is accepted
    # by rule, the row numbers and values of a few rows that broke it
    examples: Mapping[str, Sequence[tuple[int, str | None]]] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Return whether the file would be published."""
        return not self.reasons


def check(console: Console, contract: Contract, file: Path, output: Path | None) -> bool:
    """Check `file` against `contract`, show the result, and return whether the file would be published.

    Args:
        output: a folder for the files that would be published and quarantined. If it is None, or if the file is
            rejected, nothing is written.

    Raises:
        ContractInvalid: the contract is invalid.
        PathUnwritable: `output` cannot be written.
    """
    check_contract(contract)
    before = _peak_bytes()
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        with shown_after_a_second(console, f"checking {escape(file.name)}"):
            checked = check_file(contract, file, Path(folder))
        show(console, contract, file, checked)
        if checked.refined and checked.accepted:
            _show_memory(console, contract, file, before)
            _show_disk(console, contract, file, checked.refined)
        if output is not None and checked.refined and checked.accepted:
            with written_to(output):
                copied = copy_outputs(checked.refined, file, output)
            for path in copied:
                console.out(f"wrote {path}")
    return checked.accepted


def check_file(contract: Contract, file: Path, work_dir: Path) -> Checked:
    """Validate and preprocess a file as the pipeline does, without publishing it. Raise ContractInvalid if an
    expectation or a step cannot be used."""
    try:
        refined = refine_file(file, contract, work_dir, folders=folders_of(file.as_posix()))
    except ContractInvalid:
        raise
    except EncodingUnknown as error:
        shown = [f"as {encoding} it begins: {reading}" for encoding, reading in error.readings.items()]
        return Checked(None, (str(error), *shown))
    except TerminalError as error:
        return Checked(None, (str(error),))
    reasons = tuple(reason.message for reason in refined.rejected)
    return Checked(refined, reasons, _examples(file.path for file in refined.quarantine))


def copy_outputs(refined: Refined, file: Path, output: Path) -> list[Path]:
    """Copy the refined files to the subfolders `data` and `quarantine` of `output`, and return the copies' paths."""
    stem = file.name.split(".", 1)[0]
    files = [*(("data", part) for part in refined.outputs), *(("quarantine", part) for part in refined.quarantine)]
    copied = []
    for kind, part in files:
        path = output / kind / part.folder / f"{stem}{part.extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(part.path, path)
        copied.append(path)
    return copied


def _examples(quarantine: Iterable[Path]) -> dict[str, list[tuple[int, str | None]]]:
    examples: defaultdict[str, list[tuple[int, str | None]]] = defaultdict(list)
    for path in quarantine:
        with pq.ParquetFile(path) as rows:
            for batch in rows.iter_batches(_QUARANTINE_BATCH_ROWS, columns=[ROW_NUMBER, RULES, VALUES, RAW]):
                for row in batch.to_pylist():
                    for rule, value in zip(row[RULES], row[VALUES], strict=True):
                        if len(examples[rule]) < _EXAMPLES:
                            examples[rule].append((row[ROW_NUMBER], row[RAW] if row[RAW] is not None else value))
    return examples


# --- output -----------------------------------------------------------------------------------------------------------


def show(console: Console, contract: Contract, file: Path, checked: Checked) -> None:
    """Print the result of a check: every rule, how the file was read, its columns and rows, and whether it is
    accepted."""
    if checked.refined:
        if checked.refined.checks:
            console.print(_rules(checked.refined, checked.examples))
        console.out("\n".join(_facts(checked.refined)))
    verdict = "[bold green]accepted[/]" if checked.accepted else "[bold red]rejected[/]"
    console.print(f"{verdict}  {escape(file.name)} by {contract.dataset}")
    for reason in checked.reasons:
        console.out(f"          {reason}")


def _show_memory(console: Console, contract: Contract, file: Path, before: int) -> None:
    """If a step needs the whole table, print how large a file may be so that it fits into a task's memory. This is
    estimated from the memory that this file needed or, for a small file, from measured factors. `before` is this
    process's peak memory before it read the file, in bytes."""
    steps = [step for step in compile_steps(contract) if isinstance(step, OwnStep) and step.needs_whole_table]
    if not steps:
        return
    size, growth = file.stat().st_size, _peak_bytes() - before - _FIXED_GROWTH_BYTES
    task = int(default_parameters(_TEMPLATE)["TaskMemory"]) * 2**20
    measured = _WHOLE_TABLE_FACTORS.get(file.suffix.lower(), _WHOLE_TABLE_FACTOR_PACKED)
    fits = (task - before - _FIXED_GROWTH_BYTES) / (growth / size if growth >= _LEAST_GROWTH_BYTES else measured)
    labels = ", ".join(step.label for step in steps)
    is_too_large = size > fits
    console.print(
        f"{'[bold red]memory[/]' if is_too_large else '[yellow]memory[/]'}    {escape(labels)} needs all rows at once."
        f" The file has {size / 1e6:,.1f} MB and {'does not fit' if is_too_large else 'fits'} into a task with"
        f" TaskMemory {task >> 20}, which is enough for about {fits / 1e6:,.0f} MB."
    )


def _show_disk(console: Console, contract: Contract, file: Path, refined: Refined) -> None:
    """Print a warning if the waiting rows of the largest allowed file, in the format of `file` and equally compressed,
    do not fit on a task's disk."""
    decided = {decision.name: decision.value for decision in refined.decisions}
    expansion = _content_bytes(file) / file.stat().st_size if "compression" in decided else 1
    warning = disk_warning(contract, default_parameters(_TEMPLATE), str(decided["format"]), expansion)
    if warning:
        console.out(f"disk      {warning}")


def _content_bytes(file: Path) -> int:
    """Return the size of a compressed file's content."""
    with open_bytes(file, Limits()) as source:
        return sum(map(len, iter(partial(source.read, _READ_BYTES), b"")))


def _peak_bytes() -> int:
    """Return this process's peak resident memory in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rules(refined: Refined, examples: Mapping[str, Sequence[tuple[int, str | None]]]) -> Table:
    rejecting = {reason.code for reason in refined.rejected}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for header in ("rule", "column", "found", "expected, and rows that break it"):
        table.add_column(header, justify="right" if header == "found" else "left", overflow="fold")
    # Failed rules come last, next to the verdict: a terminal shows the end of a long table.
    for check in sorted(refined.checks, key=lambda check: (not check.success, check.rule in rejecting)):
        broken = [f"row {row}: {_value(value)}" for row, value in examples.get(check.rule, ())]
        expected = [line for line in (_arguments(check.expected), *broken) if line]
        table.add_row(
            _mark(check, rejects=check.rule in rejecting),
            escape(check.expectation.removeprefix("expect_").removeprefix("column_values_to_")),
            escape(check.column or ""),
            escape(_found(check)),
            escape("\n".join(expected)),
        )
    return table


def _found(check: Check) -> str:
    if check.rows_failing is None:
        return _short(check.observed)
    judged = check.rows_evaluated or 0
    return f"{check.rows_failing:,} of {judged:,} fail" if check.rows_failing else f"all {judged:,} pass"


def _mark(check: Check, *, rejects: bool) -> str:
    if check.success:
        return "[green]pass[/]"
    if check.severity == "info":
        return "[cyan]info[/]"
    return "[bold red]FAIL[/]" if rejects else "[yellow]FAIL[/]"


def _facts(refined: Refined) -> Iterator[str]:
    head, is_accepted = "read as", not refined.rejected
    for basis, texts in by_basis(refined.decisions).items():
        yield f"{head:<9} {basis}: {', '.join(texts)}"
        head = ""
    columns_in = list(refined.columns_in)
    yield f"columns   in {len(columns_in)}: {', '.join(columns_in)}"
    if is_accepted:
        yield f"         out {len(refined.columns_out)}: {', '.join(refined.columns_out)}"
    went = f"{refined.rows_published:,} published" if is_accepted else "none published, because the file is rejected"
    yield f"rows      {refined.rows_in:,} in, {went}"
    for rule, rows in refined.quarantined.items():
        yield f"          {rows:,} {'quarantined' if is_accepted else 'bad'}: {rule}"
    for step, rows in refined.dropped.items() if is_accepted else ():
        yield f"          {rows:,} dropped: {step}"


def _arguments(expected: Any) -> str:
    if not isinstance(expected, Mapping):
        return _short(expected)
    listed = {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in expected.items()}
    return _short(", ".join(f"{name} {value}" for name, value in listed.items()))


def _value(value: str | None) -> str:
    return "no value" if value is None else _short(repr(value))


def _short(value: Any) -> str:
    return "" if value is None else shortened(str(value), _MAX_CELL)
