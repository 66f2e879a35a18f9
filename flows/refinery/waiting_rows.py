"""Find the rules and steps for which rows wait on the disk for the end of their file, and how much disk they take."""

from collections.abc import Mapping
from types import MappingProxyType

from flows.refinery.contract.model import Contract
from flows.refinery.preprocess.step_base import FittedStep
from flows.refinery.preprocess.steps import compile_steps
from flows.refinery.preprocess.table_steps import DropDuplicates
from flows.refinery.validate.rules import rules_of

DISK_FOR_EACH_BYTE: Mapping[str, float] = MappingProxyType({"csv": 1.3, "json": 1.2, "jsonl": 1.2, "parquet": 2.8})
"""Bytes on the disk for each byte of a file above 1 GiB, as measured (docs/performance.md)."""

_OPEN_FILES, _OPEN_FILES_IN_FOLDERS = 2, 5  # full output files on the disk at the same time, one with bad rows


def reasons_to_wait(contract: Contract) -> list[str]:
    """Return the contract's expectations and built-in steps for which the rows of a large file wait on the disk."""
    rules = [rule.id for rule in rules_of(contract) if rule.is_late and rule.severity != "info"]
    steps = [
        step.label
        for step in compile_steps(contract)
        if isinstance(step, DropDuplicates) or (isinstance(step, FittedStep) and not step.is_fitted)
    ]
    return [f"expectations: {rule}" for rule in rules] + [f"preprocess: {step}" for step in steps]


def disk_needed(contract: Contract, file_bytes: int, kind: str) -> int:
    """Return how many bytes of disk a file takes if its rows wait.

    Args:
        file_bytes: the size of the file or, if it is compressed, of its content.
        kind: the file's format, a key of DISK_FOR_EACH_BYTE.
    """
    return _outputs_bytes(contract) + int(file_bytes * DISK_FOR_EACH_BYTE[kind])


def largest_file(contract: Contract, disk_bytes: int, kind: str) -> int:
    """Return the size of the largest file whose rows can wait on the disk, in bytes."""
    return max(0, int((disk_bytes - _outputs_bytes(contract)) / DISK_FOR_EACH_BYTE[kind]))


def _outputs_bytes(contract: Contract) -> int:
    output = contract.output
    return output.max_file_bytes * (_OPEN_FILES_IN_FOLDERS if output.partition_by else _OPEN_FILES)
