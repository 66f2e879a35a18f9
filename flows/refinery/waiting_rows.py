"""Find out why a contract makes rows wait for the end of their file, and how much disk space they take."""

from collections.abc import Mapping
from types import MappingProxyType

from flows.refinery.contract.model import Contract
from flows.refinery.preprocess.step_base import FittedStep
from flows.refinery.preprocess.steps import compile_steps
from flows.refinery.preprocess.table_steps import DropDuplicates
from flows.refinery.read.partition_spool import UNCOMPRESSED_BYTES
from flows.refinery.validate.rules import rules_of

DISK_FOR_EACH_BYTE: Mapping[str, float] = MappingProxyType({"csv": 1.3, "json": 0.5, "jsonl": 0.5, "parquet": 2.8})
"""Bytes on the disk for each byte of a file, by format, while its rows wait. Rows are compressed, and output files are
included. The numbers are rounded up from measurements (docs/performance.md)."""

_OPEN_FILES, _OPEN_FILES_IN_FOLDERS = 2, 5  # full output files on the disk at once, one of them with bad rows


def reasons_to_wait(contract: Contract, kind: str) -> list[str]:
    """Return why the rows of a file wait on the disk until all are read: rules and steps that need all rows, or a
    header that a later row may change. `kind` is the file's format, a key of DISK_FOR_EACH_BYTE."""
    rules = [rule.id for rule in rules_of(contract) if rule.is_late and rule.may_quarantine]
    steps = [
        step.label
        for step in compile_steps(contract)
        if isinstance(step, DropDuplicates) or (isinstance(step, FittedStep) and not step.is_fitted)
    ]
    header = []
    if kind in ("json", "jsonl"):
        header = [f"format {kind}: a later row may have more columns"]
    elif contract.unknown_columns == "evolve":
        header = ["unknown_columns: evolve, for files with columns that the contract does not declare"]
    return [f"expectations: {rule}" for rule in rules] + [f"preprocess: {step}" for step in steps] + header


def disk_needed(contract: Contract, file_bytes: int, kind: str) -> int:
    """Return how many bytes of disk space a file takes if its rows wait.

    Args:
        file_bytes: the size of the file or, if it is compressed, of its content.
        kind: the file's format, a key of DISK_FOR_EACH_BYTE.
    """
    return _fixed_bytes(contract) + int(file_bytes * DISK_FOR_EACH_BYTE[kind])


def largest_file(contract: Contract, disk_bytes: int, kind: str) -> int:
    """Return the size of the largest file whose rows can wait on the disk, in bytes."""
    return max(0, int((disk_bytes - _fixed_bytes(contract)) / DISK_FOR_EACH_BYTE[kind]))


def _fixed_bytes(contract: Contract) -> int:
    output = contract.output
    files = _OPEN_FILES_IN_FOLDERS if output.partition_by else _OPEN_FILES
    return output.max_file_bytes * files + UNCOMPRESSED_BYTES
