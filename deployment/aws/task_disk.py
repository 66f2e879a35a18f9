"""Warns if a contract makes rows wait on a task's disk that is too small for the largest allowed file."""

from collections.abc import Mapping

from blocks.limits import DISK_OF_IMAGE_GIB, GIB
from flows.refinery.contract.model import Contract
from flows.refinery.waiting_rows import DISK_FOR_EACH_BYTE, disk_needed, largest_file, reasons_to_wait

_MAX_DISK_GIB = 200  # of a Fargate task


def disk_warning(
    contract: Contract, parameters: Mapping[str, str], kind: str = "csv", expansion: float = 1
) -> str | None:
    """Return a warning if rows must wait until all of the file is read, and the rows of a file of MaxObjectBytes do not
    fit on a task's disk; otherwise None. The warning names the contract's file, the reasons to wait and what to change.

    Args:
        parameters: the stack's parameters, including default values.
        kind: the format of the files, unless the contract declares one. Formats other than CSV, JSON, JSON Lines and
            Parquet are treated as CSV.
        expansion: for files that are compressed with gzip or zstd, the size of the content divided by that of the file.
    """
    kind = next((one for one in (contract.format.type, kind) if one in DISK_FOR_EACH_BYTE), "csv")
    reasons = reasons_to_wait(contract, kind)
    disk_gib, largest = int(parameters["TaskEphemeralStorageGiB"]), int(parameters["MaxObjectBytes"])
    fits = int(largest_file(contract, (disk_gib - DISK_OF_IMAGE_GIB) * GIB, kind) / expansion)
    if not reasons or fits >= largest:
        return None
    needed_gib = -(-disk_needed(contract, int(largest * expansion), kind) // GIB) + DISK_OF_IMAGE_GIB
    place = contract.folder / "contract.yaml" if contract.folder else f"contract {contract.dataset}"
    described = f"compressed {kind}" if expansion > 1 else kind
    more = f"set TaskEphemeralStorageGiB={needed_gib}, or " if needed_gib <= _MAX_DISK_GIB else ""
    return (
        f"{place}: {'; '.join(reasons)}: the rows wait on the task's disk until the end of the file. "
        f"TaskEphemeralStorageGiB={disk_gib} is enough for {described} files of about {fits / 1e9:,.1f} GB, and "
        f"MaxObjectBytes allows {largest / 1e9:,.1f} GB: {more}lower MaxObjectBytes to {fits:,}"
    )
