"""Repair: corrected quarantine rows go back into their file, and the file through the same contract once more.

The whole file is judged and preprocessed anew, so that what comes out is what a clean upload would have given: steps
that look at all rows (duplicates, fitted values) see the corrected ones among the others. The result is a new attempt
at the same object version: its receipt replaces the earlier one by compare-and-swap. The corrections are kept beside
the quarantine and named in the receipt, so that a second repair builds on the first.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from blocks.object_store import ObjectFacts
from flows.composition import Pipeline
from flows.refinery.errors import TerminalError
from flows.refinery.judging.corrections import Corrections, CorrectionsUnusable, merge_into_csv, read_corrections
from flows.refinery.judging.quarantine import ROW_NUMBER
from flows.refinery.preparing.outputs import output_file
from flows.refinery.publishing.receipt import Output, Receipt, Status
from flows.stages import REJECTING, UploadRun
from lambda_trigger.message import UploadMessage

CORRECTIONS = "corrections"


class NothingToRepair(TerminalError):
    """The run has no receipt, was rejected as a whole, or has no rows in quarantine."""


class RepairRejected(TerminalError):
    """With the corrected rows the file would be rejected. Nothing was changed: the receipt that was there stands."""


class RepairRun(UploadRun):
    """One attempt to publish a file with corrected rows. Use `repair`, which looks after the order of things."""

    def __init__(self, pipeline: Pipeline, receipt: Receipt, corrections: Corrections) -> None:
        source = receipt.source
        upload = UploadMessage(
            bucket=source.bucket,
            key=source.key,
            version_id=source.version_id,
            etag=source.etag,
            size_bytes=source.size_bytes,
            sequencer=source.sequencer,
            attempt=receipt.attempt + 1,
        )
        super().__init__(pipeline, upload, contract=pipeline.contracts.named(receipt.contract.dataset))
        self._standing, self._corrections = receipt, corrections

    def fetch(self) -> ObjectFacts:
        """Read the object version and merge the corrections into it."""
        facts = super().fetch()
        with self._stage("merge"):
            earlier = self._outputs_of(CORRECTIONS)
            known = {number for path in self._outputs_of("quarantine") for number in _row_numbers(path)}
            for path in earlier:
                self._corrections = self._corrections.over(read_corrections(path))
                known |= set(read_corrections(path).rows)
            strange = sorted(set(self._corrections.rows) - known)
            if strange:
                raise CorrectionsUnusable(f"row {strange[0]} is not in the quarantine of run {self.upload.run_id}")
            merged = self._work_dir / "merged"
            merge_into_csv(self.source, self.contract, self._corrections, merged)
            merged.replace(self.source)
        return facts

    def publish(self) -> tuple[Output, ...]:
        """Write the outputs, and the corrections for the next repair."""
        super().publish()
        path = self._work_dir / "corrections.parquet"
        self._corrections.write(path)
        file = output_file(path, "", len(self._corrections.rows), ".corrections.parquet")
        kept = self._publish_file("quarantine", file)
        self._outputs += (kept.model_copy(update={"kind": CORRECTIONS}),)
        return self._outputs

    def _outputs_of(self, kind: str) -> list[Path]:
        """Local copies of what the standing receipt names."""
        paths = []
        for place, output in enumerate(output for output in self._standing.outputs if output.kind == kind):
            path = self._work_dir / f"{kind}-{place}.parquet"
            self.pipeline.store.fetch_output(output.key, path)
            paths.append(path)
        return paths


def repair(pipeline: Pipeline, run_id: str, corrections: Corrections) -> Receipt:
    """Publish a run's file once more, with corrected rows, and return the receipt that replaces the earlier one.

    Raises:
        NothingToRepair: the run has nothing in quarantine.
        CorrectionsUnusable: the corrected rows do not fit the file.
        RepairRejected: the file would be rejected with them.
        ReceiptConflict: somebody else replaced the receipt in the meantime.
    """
    receipt = pipeline.store.receipt(run_id)
    if receipt is None:
        raise NothingToRepair(f"there is no receipt of run {run_id}")
    if receipt.status is Status.REJECTED:
        raise NothingToRepair(f"run {run_id} was rejected as a whole ({receipt.reason}): correct the file, upload it")
    if not any(output.kind == "quarantine" for output in receipt.outputs):
        raise NothingToRepair(f"run {run_id} has no rows in quarantine")
    if not corrections.rows:
        raise CorrectionsUnusable("there is no corrected row in the file")
    with RepairRun(pipeline, receipt, corrections) as run:
        try:
            run.fetch()
            rejected = run.validate().rejected
            if rejected:
                raise RepairRejected("; ".join(reason.message for reason in rejected))
            run.refine()
            run.publish()
        except REJECTING as error:
            raise RepairRejected(str(error)) from None
        return run.record()


def _row_numbers(quarantine: Path) -> list[int]:
    numbers: list[int] = pq.read_table(quarantine, columns=[ROW_NUMBER]).column(ROW_NUMBER).to_pylist()
    return numbers
