"""Repair: put corrected quarantine rows back into their file, and process the file again under the same contract.

The whole file is validated and preprocessed again, so the result is the same as for a clean upload: steps that need all
rows (duplicates, fitted values) see the corrected rows too. The result is a new attempt at the same object version; its
receipt replaces the earlier one by compare-and-swap. The corrections are stored next to the quarantine file and named
in the receipt, so later attempts (the next repair, a forced re-run) include them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from flows.observability.flow_run import FlowRunner
from flows.pipeline.commit import read_receipt
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.receipt import CORRECTIONS, Receipt, Status
from flows.refinery.errors import TerminalError
from flows.refinery.repair.corrections import Corrections, CorrectionsUnusable, read_corrections
from flows.refinery.validate.quarantine import ROW_NUMBER
from lambda_trigger.message import UploadMessage


class NothingToRepair(TerminalError):
    """The run has no receipt, was rejected as a whole, or has no rows in quarantine."""


def fetch_quarantine(parts: Parts, run_id: str, path: Path) -> None:
    """Download the quarantine file of a run. Raise NothingToRepair when it has none."""
    receipt = _repairable(parts, run_id)
    for output in receipt.outputs:
        if output.kind == "quarantine":
            parts.store.download(parts.store.published_bucket, output.key, path)
            return
    raise NothingToRepair(f"run {run_id} has no rows in quarantine")


def repair(parts: Parts, run_id: str, corrections: Corrections) -> Receipt:
    """Publish a run's file again, with corrected rows, and return the receipt that replaces the earlier one.

    Prefect shows it as a run of the upload's deployment; when Prefect is down, the repair runs without it.

    Raises:
        NothingToRepair: the run has nothing in quarantine.
        CorrectionsUnusable: the corrected rows do not fit the file.
        RepairRejected: the file would be rejected with the corrected rows.
        ReceiptConflict: another attempt replaced the receipt in the meantime.
    """
    receipt = _repairable(parts, run_id)
    if not any(output.kind in ("quarantine", CORRECTIONS) for output in receipt.outputs):
        raise NothingToRepair(f"run {run_id} has no rows in quarantine")
    if not corrections.rows:
        raise CorrectionsUnusable("there is no corrected row in the file")
    unknown = sorted(set(corrections.rows) - _rows_open_to_repair(parts, receipt))
    if unknown:
        raise CorrectionsUnusable(f"row {unknown[0]} is not in the quarantine of run {run_id}")
    source = receipt.source.model_dump(exclude={"last_modified"})
    job = UploadJob(
        UploadMessage(**source, attempt=receipt.attempt + 1),
        contract=parts.contracts.named(receipt.contract.dataset),
        corrections=corrections,
        by_hand=True,
    )
    return FlowRunner(parts).process(job)


def _repairable(parts: Parts, run_id: str) -> Receipt:
    receipt = read_receipt(parts.store, run_id)
    if receipt is None:
        raise NothingToRepair(f"there is no receipt of run {run_id}")
    if receipt.status is Status.REJECTED:
        raise NothingToRepair(f"run {run_id} was rejected as a whole ({receipt.reason}): correct the file, upload it")
    return receipt


def _rows_open_to_repair(parts: Parts, receipt: Receipt) -> set[int]:
    """Return the numbers of the rows in quarantine and of those that were corrected before."""
    numbers: set[int] = set()
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        for place, output in enumerate(receipt.outputs):
            path = Path(folder) / f"{place}.parquet"
            if output.kind == "quarantine":
                parts.store.download(parts.store.published_bucket, output.key, path)
                numbers.update(pq.read_table(path, columns=[ROW_NUMBER]).column(ROW_NUMBER).to_pylist())
            elif output.kind == CORRECTIONS:
                parts.store.download(parts.store.published_bucket, output.key, path)
                numbers.update(read_corrections(path).rows)
    return numbers
