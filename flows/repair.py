"""Repair a published file by processing it again with corrected rows in place of the quarantined ones.

The whole file is validated and preprocessed again under its dataset's contract, so the result is the same as for a
clean upload: steps that need all rows (duplicates, fitted values) see the corrected rows too. The result is a new
attempt at the same object version; its receipt replaces the earlier one by compare-and-swap. The corrections are stored
next to the quarantine file and named in the receipt, so later attempts (the next repair, a forced re-run) include them.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from blocks.object_store import ObjectGone
from flows.observability.flow_run import FlowRunner
from flows.pipeline.announce import Announcer
from flows.pipeline.by_hand import reported
from flows.pipeline.commit import read_receipt
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.receipt import CORRECTIONS, Output, Receipt, Status
from flows.refinery.errors import TerminalError
from flows.refinery.repair.changes import Change, changes_in, corrections_of
from flows.refinery.repair.corrections import Corrections, CorrectionsUnusable, read_corrections
from flows.refinery.repair.quarantined_rows import QuarantinedRow, read_quarantine
from lambda_trigger.message import UploadMessage


class NothingToRepair(TerminalError):
    """The run has no receipt, its file was rejected as a whole, it has no rows in quarantine, or its quarantine file no
    longer exists."""


def fetch_quarantine(parts: Parts, run_id: str, folder: Path) -> None:
    """Download the quarantine files of a run to a new folder. Raise NothingToRepair if the run has none."""
    receipt = _repairable(parts, run_id)
    outputs = [output for output in receipt.outputs if output.kind == "quarantine"]
    if not outputs:
        raise NothingToRepair(f"run {run_id} has no rows in quarantine")
    folder.mkdir()
    for place, output in enumerate(outputs):
        _download(parts, receipt, output, folder / f"{place:04d}.parquet")


@dataclass(frozen=True)
class RepairPlan:
    """The changes that a repair will make."""

    receipt: Receipt  # the receipt that the repair replaces
    changes: tuple[Change, ...]  # every cell that the repair changes
    corrections: Corrections  # the corrected rows


def plan_repair(parts: Parts, run_id: str, file: Path) -> RepairPlan:
    """Compare a corrected file with the rows of a run that are in quarantine or were corrected before, and return the
    changes that a repair would make, including changes to cells that broke no rule.

    Raises:
        NothingToRepair: the run has nothing to repair.
        CorrectionsUnusable: the file cannot be read, changes nothing, or has rows that cannot be repaired.
    """
    receipt = _repairable(parts, run_id)
    if not any(output.kind in ("quarantine", CORRECTIONS) for output in receipt.outputs):
        raise NothingToRepair(f"run {run_id} has no rows in quarantine")
    open_rows = _rows_open_to_repair(parts, receipt)
    changes = changes_in(file, open_rows)
    if not changes:
        raise CorrectionsUnusable(f"{file.name} changes nothing: every cell is the same as in the quarantine")
    return RepairPlan(receipt, changes, corrections_of(changes, open_rows))


def repair(parts: Parts, plan: RepairPlan) -> Receipt:
    """Process a run's file again with the corrected rows, and return the receipt that replaces the earlier one.

    Prefect shows the repair as a flow run of `process-upload`; if Prefect is down, the repair runs without it.

    Raises:
        ContractInvalid: the dataset's contract does not exist or is invalid.
        CorrectionsUnusable: the corrected rows do not match the file.
        RepairRejected: the file would be rejected with the corrected rows; the earlier receipt remains valid.
        ReceiptConflict: another attempt replaced the receipt in the meantime.
    """
    receipt = plan.receipt
    source = receipt.source.model_dump(exclude={"last_modified"})
    job = UploadJob(
        UploadMessage(**source, attempt=receipt.attempt + 1),
        contract=parts.contracts.named(receipt.contract.dataset),
        corrections=plan.corrections,
        by_hand=True,
    )
    return reported(parts, job, lambda: FlowRunner(parts).process(job), Announcer(parts, counts=False).announce)


def _repairable(parts: Parts, run_id: str) -> Receipt:
    receipt = read_receipt(parts.store, run_id)
    if receipt is None:
        raise NothingToRepair(f"there is no receipt of run {run_id}")
    if receipt.status is Status.REJECTED:
        raise NothingToRepair(f"run {run_id} was rejected as a whole ({receipt.reason}); upload a corrected file")
    return receipt


def _download(parts: Parts, receipt: Receipt, output: Output, path: Path) -> None:
    try:
        parts.store.download(parts.store.published_bucket, output.key, path)
    except ObjectGone:
        raise NothingToRepair(
            f"the {output.kind} file of run {receipt.run_id} no longer exists: it has expired or was deleted "
            f"({output.key})"
        ) from None


def _rows_open_to_repair(parts: Parts, receipt: Receipt) -> dict[int, QuarantinedRow]:
    """Return the rows that a repair may change, by row number. These are the rows in quarantine, and the rows that were
    corrected before, which no longer have bad cells."""
    corrected: dict[int, QuarantinedRow] = {}
    quarantined: dict[int, QuarantinedRow] = {}
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        for place, output in enumerate(receipt.outputs):
            path = Path(folder) / f"{place}.parquet"
            if output.kind == "quarantine":
                _download(parts, receipt, output, path)
                quarantined |= read_quarantine(path)
            elif output.kind == CORRECTIONS:
                _download(parts, receipt, output, path)
                corrected = {number: QuarantinedRow(row) for number, row in read_corrections(path).rows.items()}
    return {**corrected, **quarantined}
