"""`sluice repair`: exports quarantined rows for correction, and processes a file again with the corrected rows."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from deployment.aws.access import own_session
from deployment.commands import visible_line
from deployment.commands.prefect_session import prefect_of
from deployment.commands.show import details_of, receipt_address, rows_of
from deployment.commands.user_paths import written_to
from deployment.deployed_stack import DeployedStack
from deployment.environment_variables import pipeline_settings
from flows.pipeline.receipt import Receipt
from flows.pipeline.run_ids import RunUnknown, find_run
from flows.refinery.read.header import DROP
from flows.refinery.repair.changes import Change, require_only_bad_cells
from flows.refinery.repair.quarantined_rows import export_quarantine
from flows.refinery.words import counted

if TYPE_CHECKING:
    from flows.pipeline.job import Parts

_IN_A_NAME = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
# The command itself prints only a short summary; the full log is in Prefect.
_QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR", "PREFECT_CLIENT_MAX_RETRIES": "3"}


def export(console: Console, quarantine: Path, destination: Path, run_id: str | None = None) -> None:
    """Write the rows of a quarantine file to a workbook or a CSV file, depending on the extension of `destination`.

    Raises:
        RunUnknown: `run_id` is not given, and the file's name contains no run ID.
        CorrectionsUnusable: `quarantine` is not a quarantine file.
        WorkbookTooSmall: the rows do not fit into a workbook.
        PathUnwritable: `destination` cannot be written.
    """
    run = run_id or _run_in_name(quarantine)
    with written_to(destination):
        rows = export_quarantine(quarantine, destination)
    console.out(f"wrote {rows:,} rows to {destination}. Correct the values; to drop a row, write drop into {DROP}.")
    console.out("Do not change _row_number. Then run:")
    console.out(f"  sluice repair {shlex.quote(str(destination))} --run {run}")


def export_run(console: Console, cloud: DeployedStack, run_id: str, destination: Path) -> None:
    """Download a run's quarantined rows, and write them to a workbook or a CSV file.

    Raises:
        RunUnknown: no run matches `run_id`, or several do.
        NothingToRepair: the run has no rows in quarantine.
        WorkbookTooSmall: the rows do not fit into a workbook.
        PathUnwritable: `destination` cannot be written.
    """
    with _parts(cloud) as parts, tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        from flows.repair import fetch_quarantine

        run, path = find_run(parts.store, run_id), Path(folder) / "quarantine"
        fetch_quarantine(parts, run, path)
        export(console, path, destination, run)


def repair(
    console: Console,
    cloud: DeployedStack,
    file: Path,
    run_id: str | None,
    *,
    allow_other_changes: bool = False,
    confirm: Callable[[str], bool] = lambda _: True,
) -> Receipt | None:
    """Show the changes in a file with corrected rows and, if they are confirmed, process the upload again with them.
    Return the new receipt, or None if they are not confirmed.

    Raises:
        RunUnknown, NothingToRepair, CorrectionsUnusable, OtherCellsChanged, RepairRejected, ReceiptConflict: the repair
            is not possible, and nothing was changed.
    """
    given = run_id or _run_in_name(file)
    with _parts(cloud) as parts:
        from flows.repair import plan_repair
        from flows.repair import repair as do

        plan = plan_repair(parts, find_run(parts.store, given), file)
        _show(console, plan.changes)
        if not allow_other_changes:
            require_only_bad_cells(plan.changes)
        if not confirm("Publish the file with these changes?"):
            console.print("Nothing was changed.")
            return None
        before, receipt = plan.receipt, do(parts, plan)
    console.print(f"[green]repaired[/]  attempt {receipt.attempt}: {rows_of(receipt)}")
    lines = [*details_of(receipt), receipt_address(cloud, receipt.run_id)]
    if before.contract.content_hash != receipt.contract.content_hash:
        lines.insert(0, f"the contract {receipt.contract.dataset} has changed since the previous attempt")
    for line in lines:
        console.out(f"          {line}", style="dim")
    return receipt


def _show(console: Console, changes: Sequence[Change]) -> None:
    """Print every changed cell. The values are data, so they must not be logged."""
    rows = len({change.row_number for change in changes})
    console.out(f"{counted(len(changes), 'changed cell')} in {counted(rows, 'row')}:")
    for change in changes:
        before, after = (visible_line(repr(value)) if value else "no value" for value in (change.before, change.after))
        other = "" if change.was_bad else "  (broke no rule)"
        console.out(f"  row {change.row_number}, {visible_line(change.column)}: {before} -> {after}{other}")


def _run_in_name(file: Path) -> str:
    """Return the run ID in a file's name. Raise RunUnknown if there is none."""
    found = _IN_A_NAME.search(file.name)
    if found is None:
        raise RunUnknown(f"the name {file.name} contains no run ID; specify the run with --run")
    return found.group()


@contextmanager
def _parts(cloud: DeployedStack) -> Iterator[Parts]:
    """Assemble the pipeline's parts for a stack, and use its Prefect API while the block runs. In the local cloud, the
    block has the permissions of a task."""
    environment = {**cloud.task_environment, **pipeline_settings(cloud.outputs), **_QUIET}
    with own_session(environment), prefect_of(environment):
        from blocks.settings import PipelineSettings
        from flows.composition import assemble

        yield assemble(PipelineSettings.from_environment())
