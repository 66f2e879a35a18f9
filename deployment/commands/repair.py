"""`sluice repair`: brings corrected quarantine rows back in, or writes a quarantine file as CSV to be corrected."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console

from deployment.commands.running import running_cloud
from deployment.commands.show import details_of, receipt_address, rows_of
from deployment.local.environment import only
from deployment.local.pipeline import settings_of
from flows.refinery.errors import TerminalError
from flows.refinery.judging.corrections import export_quarantine, read_corrections
from flows.refinery.publishing.receipt import Receipt

_RUN_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


class RunUnknown(TerminalError):
    """The file's name does not say which run its rows are of."""


def export(console: Console, quarantine: Path, destination: Path) -> None:
    """Write a quarantine file as CSV.

    Raises:
        CorrectionsUnusable: it is no quarantine file.
    """
    rows = export_quarantine(quarantine, destination)
    console.print(
        f"wrote {rows:,} rows to {destination}. Correct the values, leave _row_number as it is, then:",
        f"  sluice repair {destination} --run {run_of(quarantine, None)}",
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def repair(console: Console, state_dir: Path, file: Path, run_id: str | None) -> Receipt:
    """Publish a file of the running local cloud once more, with corrected rows.

    Raises:
        LocalCloudNotRunning: there is no cloud to work in.
        RunUnknown, NothingToRepair, CorrectionsUnusable, RepairRejected: nothing was changed.
    """
    corrections = read_corrections(file)
    run = run_of(file, run_id)
    cloud = running_cloud(state_dir)
    with only({**cloud.environment, **settings_of(cloud.outputs)}):
        from blocks.settings import PipelineSettings
        from flows.composition import assemble
        from flows.repair import repair as do

        receipt = do(assemble(PipelineSettings.from_environment()), run, corrections)
    console.print(f"[green]repaired[/]  attempt {receipt.attempt}: {rows_of(receipt)}", highlight=False, soft_wrap=True)
    for line in [*details_of(receipt), receipt_address(cloud, receipt.run_id)]:
        console.print(f"          {line}", style="dim", highlight=False, markup=False, soft_wrap=True)
    return receipt


def run_of(file: Path, named: str | None) -> str:
    """Return the run that was named, else the one in the file's name.

    Raises:
        RunUnknown: there is none, or what was named is no run id.
    """
    found = _RUN_ID.search(named if named is not None else file.name)
    if found is None:
        what = f"{named!r} is no run id" if named is not None else f"the name {file.name} holds no run id"
        raise RunUnknown(f"{what}; say with --run which run the rows are of (32 characters of 0-9 and a-f)")
    return found.group()
