"""`sluice repair`: writes quarantined rows as CSV for correction, and publishes a file again with corrected rows."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from deployment.commands.show import details_of, receipt_address, rows_of
from deployment.commands.user_paths import written_to
from deployment.deployed_stack import DeployedStack
from deployment.environment_variables import only, pipeline_settings
from flows.pipeline.receipt import Receipt
from flows.refinery.errors import TerminalError
from flows.refinery.repair.corrections import export_quarantine, read_corrections

if TYPE_CHECKING:
    from flows.pipeline.job import Parts

_RUN_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
# The command prints a short summary; Prefect keeps the full log.
_QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR", "PREFECT_CLIENT_MAX_RETRIES": "3"}


class RunUnknown(TerminalError):
    """Neither --run nor the file's name contains a run id."""


def export(console: Console, quarantine: Path, destination: Path, run_id: str | None = None) -> None:
    """Write a quarantine file as CSV.

    Raises:
        RunUnknown: neither `run_id` nor the file's name contains a run id.
        CorrectionsUnusable: not a quarantine file.
        PathUnwritable: nothing can be written to `destination`.
    """
    run = run_id_from(quarantine, run_id)
    with written_to(destination):
        rows = export_quarantine(quarantine, destination)
    console.out(f"wrote {rows:,} rows to {destination}. Correct the values, do not change _row_number, then run:")
    console.out(f"  sluice repair {destination} --run {run}")


def export_run(console: Console, cloud: DeployedStack, run_id: str, destination: Path) -> None:
    """Fetch the quarantine of a run and write it as CSV.

    Raises:
        RunUnknown: not a run id.
        NothingToRepair: the run has no rows in quarantine.
        PathUnwritable: nothing can be written to `destination`.
    """
    run = run_id_from(None, run_id)
    with _parts(cloud) as parts, tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        from flows.repair import fetch_quarantine

        path = Path(folder) / "quarantine.parquet"
        fetch_quarantine(parts, run, path)
        export(console, path, destination, run)


def repair(console: Console, cloud: DeployedStack, file: Path, run_id: str | None) -> Receipt:
    """Publish a file again, with corrected rows.

    Raises:
        RunUnknown, NothingToRepair, CorrectionsUnusable, RepairRejected, ReceiptConflict: nothing was changed.
    """
    corrections = read_corrections(file)
    run = run_id_from(file, run_id)
    with _parts(cloud) as parts:
        from flows.pipeline.commit import read_receipt
        from flows.repair import repair as do

        before = read_receipt(parts.store, run)
        receipt = do(parts, run, corrections)
    console.print(f"[green]repaired[/]  attempt {receipt.attempt}: {rows_of(receipt)}")
    lines = [*details_of(receipt), receipt_address(cloud, receipt.run_id)]
    if before and before.contract.content_hash != receipt.contract.content_hash:
        lines.insert(0, f"the contract {receipt.contract.dataset} has changed since the attempt before")
    for line in lines:
        console.out(f"          {line}", style="dim")
    return receipt


def run_id_from(file: Path | None, named: str | None) -> str:
    """Return the named run, else the one in the file's name.

    Raises:
        RunUnknown: there is none, or the name is not a run id.
    """
    found = _RUN_ID.search(named if named is not None else file.name if file else "")
    if found is None:
        what = f"{named!r} is not a run id" if named is not None or file is None else f"{file.name} contains no run id"
        raise RunUnknown(f"{what}; give the run with --run (32 characters of 0-9 and a-f)")
    return found.group()


@contextmanager
def _parts(cloud: DeployedStack) -> Iterator[Parts]:
    """Provide the parts of `cloud` and its Prefect to this process."""
    environment = {**cloud.environment, **pipeline_settings(cloud.outputs), **_QUIET}
    with only(environment), ExitStack() as stack:
        # Prefect reads the environment when it is imported, which may already have happened.
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

        from blocks.settings import PipelineSettings
        from flows.composition import assemble

        settings = (PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL)
        given = {setting: environment[setting.name] for setting in settings if environment.get(setting.name)}
        stack.enter_context(temporary_settings(given))
        yield assemble(PipelineSettings.from_environment())
