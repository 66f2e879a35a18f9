"""Warn if a contract makes rows wait on the disk of a task, and the disk is too small for the largest files."""

from collections.abc import Mapping

from blocks.limits import DISK_OF_IMAGE_GIB, GIB
from flows.refinery.contract.model import Contract
from flows.refinery.waiting_rows import DISK_FOR_EACH_BYTE, disk_needed, largest_file, reasons_to_wait

_MAX_DISK_GIB = 200  # of a Fargate task


def disk_warning(contract: Contract, parameters: Mapping[str, str], kind: str = "csv") -> str | None:
    """Return a warning if a file of MaxObjectBytes does not fit, with the contract's file, its field and what to
    change; None if the file fits.

    Args:
        parameters: the stack's parameters, with defaults.
        kind: the format of the files, unless the contract declares one; of others than CSV, JSON and Parquet, that of
            CSV is estimated.
    """
    reasons = reasons_to_wait(contract)
    kind = next((one for one in (contract.format.type, kind) if one in DISK_FOR_EACH_BYTE), "csv")
    disk_gib, largest = int(parameters["TaskEphemeralStorageGiB"]), int(parameters["MaxObjectBytes"])
    fits = largest_file(contract, (disk_gib - DISK_OF_IMAGE_GIB) * GIB, kind)
    if not reasons or fits >= largest:
        return None
    needed_gib = -(-disk_needed(contract, largest, kind) // GIB) + DISK_OF_IMAGE_GIB
    place = contract.folder / "contract.yaml" if contract.folder else f"contract {contract.dataset}"
    more = f"set TaskEphemeralStorageGiB={needed_gib}, or " if needed_gib <= _MAX_DISK_GIB else ""
    return (
        f"{place}: {'; '.join(reasons)}: the rows wait on the task's disk until the end of the file. "
        f"TaskEphemeralStorageGiB={disk_gib} is enough for {kind} files of about {fits / 1e9:,.1f} GB, and "
        f"MaxObjectBytes allows {largest / 1e9:,.1f} GB: {more}lower MaxObjectBytes to {fits:,}"
    )
