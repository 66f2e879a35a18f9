"""`sluice repair` exports the quarantined rows of a run and publishes them after they have been corrected."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from deployment import cli
from deployment.commands.repair import export, export_run, repair
from deployment.commands.user_paths import PathUnwritable
from deployment.deployed_stack import AwsStack
from flows.pipeline.commit import read_receipt
from flows.pipeline.run_ids import RunUnknown
from flows.refinery.repair.changes import OtherCellsChanged
from flows.refinery.repair.corrections import CorrectionsUnusable
from flows.repair import NothingToRepair, fetch_quarantine
from tests.chain.files import order, orders
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account, account

__all__ = ["account"]

DIRTY = orders(*(order(number, unit_price="cheap") if number == 2 else order(number) for number in range(1, 9)))


@pytest.fixture
def deployed(account: Account, monkeypatch: pytest.MonkeyPatch) -> AwsStack:
    """Return a stack in the simulated account, as a command receives it."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    outputs = {
        "LandingBucket": LANDING,
        "IgnoredNames": "_*",
        "PublishedBucket": PUBLISHED,
        "QueueUrl": account.parts.queue.queue_url,
        "IncomingPrefix": "incoming/",
        "StateMachineArn": "arn:aws:states:us-east-1:123456789012:stateMachine:uploads",
        "StackName": "sluice",
        "DeadLetterQueueUrl": account.parts.queue.dead_letter_queue_url,
        "WindowSeconds": "60",
    }
    return AwsStack("us-east-1", "", "sluice", outputs, {"PrefectApiUrl": ""})


def test_quarantined_rows_are_exported_by_run_id_and_published_once_corrected(
    account: Account,
    deployed: AwsStack,
    tmp_path: Path,
) -> None:
    dirty = account.process(account.upload("incoming/orders/monday.csv", DIRTY))
    output = io.StringIO()
    path = tmp_path / "corrected rows.csv"
    export_run(Console(file=output), deployed, dirty.run_id[:8], path)
    assert f"sluice repair '{path}' --run {dirty.run_id}" in output.getvalue()
    path.write_text(path.read_text().replace("cheap", "9.50"))
    repaired = repair(Console(file=output), deployed, path, dirty.run_id[:8])
    assert repaired
    assert (repaired.attempt, repaired.rows.published, repaired.rows.quarantined) == (1, 8, {})
    assert "row 2, unit_price: 'cheap' -> '9.50'" in output.getvalue()
    assert "repaired" in output.getvalue()
    with pytest.raises(NothingToRepair):
        export_run(Console(file=output), deployed, dirty.run_id, path)


def test_a_row_that_is_marked_in_the_export_is_dropped(account: Account, deployed: AwsStack, tmp_path: Path) -> None:
    dirty = account.process(account.upload("incoming/orders/monday.csv", DIRTY))
    output, path = io.StringIO(), tmp_path / "corrected.csv"
    export_run(Console(file=output), deployed, dirty.run_id, path)
    header, row = path.read_text("utf-8-sig").splitlines()
    assert header.startswith("_row_number,_sluice_drop,_rules,")
    path.write_text(f"{header}\n{row.replace('2,,', '2,wrong,', 1)}\n")
    with pytest.raises(CorrectionsUnusable):
        repair(Console(file=output), deployed, path, dirty.run_id)
    path.write_text(f"{header}\n{row.replace('2,,', '2,yes,', 1)}\n")
    repaired = repair(Console(file=output, width=200), deployed, path, dirty.run_id)
    assert repaired
    assert (repaired.rows.published, repaired.rows.quarantined) == (7, {})
    assert repaired.rows.dropped == {"dropped_by_repair": 1}
    assert "row 2, _sluice_drop: no value -> 'drop'" in output.getvalue()
    assert "dropped 1: dropped_by_repair" in output.getvalue()


def test_nothing_is_published_without_confirmation_or_if_other_cells_were_changed(
    account: Account, deployed: AwsStack, tmp_path: Path
) -> None:
    dirty = account.process(account.upload("incoming/orders/monday.csv", DIRTY))
    output, path = io.StringIO(), tmp_path / "corrected.csv"
    export_run(Console(file=output), deployed, dirty.run_id, path)
    path.write_text(path.read_text().replace("cheap", "9.50"))
    assert repair(Console(file=output), deployed, path, dirty.run_id, confirm=lambda _: False) is None
    path.write_text(path.read_text().replace("SKU-1", "SKU-2"))
    with pytest.raises(OtherCellsChanged):
        repair(Console(file=output, width=200), deployed, path, dirty.run_id)
    assert "row 2, sku: 'SKU-1' -> 'SKU-2'  (broke no rule)" in output.getvalue()
    assert read_receipt(account.parts.store, dirty.run_id) == dirty


def test_an_unknown_run_is_rejected(deployed: AwsStack, tmp_path: Path) -> None:
    with pytest.raises(RunUnknown):
        export_run(Console(quiet=True), deployed, "monday", tmp_path / "x.csv")
    with pytest.raises(RunUnknown):
        export_run(Console(quiet=True), deployed, "0" * 8, tmp_path / "x.csv")
    with pytest.raises(NothingToRepair):
        export_run(Console(quiet=True), deployed, "0" * 32, tmp_path / "x.csv")


def quarantine_of(account: Account, folder: Path) -> tuple[str, Path]:
    """Publish a file with a bad row; return the run ID and a quarantine file whose name does not contain the run ID."""
    run_id = account.process(account.upload("incoming/orders/monday.csv", DIRTY)).run_id
    fetch_quarantine(account.parts, run_id, folder / "rows")
    (path,) = (folder / "rows").iterdir()
    return run_id, path


def test_a_quarantine_file_is_exported_for_the_given_run(account: Account, tmp_path: Path) -> None:
    run_id, path = quarantine_of(account, tmp_path)
    exported = tmp_path / "rows.csv"
    arguments = ["repair", str(path), "--run", run_id, "--export", str(exported)]
    done = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert f"--run {run_id}" in done.output
    assert "cheap" in exported.read_text()


def test_a_path_that_cannot_be_written_is_named(account: Account, deployed: AwsStack, tmp_path: Path) -> None:
    run_id, path = quarantine_of(account, tmp_path)
    nowhere = tmp_path / "nosuch" / "c.csv"
    with pytest.raises(PathUnwritable, match=str(nowhere)):
        export_run(Console(quiet=True), deployed, run_id, nowhere)
    with pytest.raises(PathUnwritable, match=str(nowhere)):
        export(Console(quiet=True), path, nowhere, run_id)
