"""The stage `refine`: from a local file to the files that will be published and quarantined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.refinery.check_contract import check_contract
from flows.refinery.checks import Check, RejectionReason
from flows.refinery.contract.model import Contract
from flows.refinery.preprocess.preprocess import preprocess_file
from flows.refinery.repair.corrections import Corrections
from flows.refinery.validate.validate import validate_file
from flows.refinery.write.outputs import OutputFile

Progress = Callable[[str, int], None]
"""Called with the part of the stage (validate, preprocess) and the rows that it has done so far."""


@dataclass(frozen=True)
class Refined:
    """A file after read, validate, preprocess and write.

    Attributes:
        quarantined: bad rows by the first rule that each broke.
        dropped: rows by the step that dropped them; all under file_rejected when the file is rejected.
        checks: what every rule found.
        rejected: why the file is rejected; empty when it is accepted.
        outputs: the clean rows, as local files; empty when the file is rejected.
        quarantine: the bad rows, as a local file; None when there are none.
        fitted: by step, what it learned, as JSON can hold it.
    """

    rows_in: int
    rows_published: int
    quarantined: dict[str, int]
    dropped: dict[str, int]
    checks: tuple[Check, ...]
    rejected: tuple[RejectionReason, ...]
    outputs: tuple[OutputFile, ...]
    quarantine: OutputFile | None
    fitted: dict[str, Any]


def refine(
    source: Path,
    contract: Contract,
    work_dir: Path,
    *,
    corrections: Corrections | None = None,
    on_progress: Progress | None = None,
) -> Refined:
    """Read, validate, preprocess and write a file, in bounded memory.

    Args:
        source: the local copy of the object version.
        work_dir: an existing folder for the files that are made.
        corrections: values that repairs put into some rows.

    Raises:
        FileRejected: a subclass says why the file cannot be read or judged at all.
        ContractInvalid: an expectation or a step's arguments cannot be used.
        StepFailed: a step cannot be done on these rows.
    """
    check_contract(contract)
    report = on_progress or (lambda _part, _rows: None)
    validated = validate_file(
        source, contract, work_dir, corrections=corrections, on_progress=lambda rows: report("validate", rows)
    )
    prepared = preprocess_file(validated, contract, work_dir, on_progress=lambda rows: report("preprocess", rows))
    return Refined(
        rows_in=validated.rows_in,
        rows_published=prepared.rows_published,
        quarantined=dict(validated.quarantined),
        dropped=dict(prepared.dropped),
        checks=validated.checks,
        rejected=validated.rejected,
        outputs=prepared.outputs,
        quarantine=prepared.quarantine,
        fitted=prepared.fitted,
    )
