"""Names that a file's columns may not have: Sluice writes its own columns next to those of the file."""

from __future__ import annotations

from collections.abc import Iterable

from flows.refinery.read.rejections import HeaderInvalid

GOOD_ROW_NUMBER = "_sluice_row_number"  # in the file of good rows
QUARANTINE_COLUMNS = ("_row_number", "_rules", "_values", "_raw")  # in the file of bad rows
RESERVED_NAMES = frozenset({GOOD_ROW_NUMBER, *QUARANTINE_COLUMNS})


def require_free_names(names: Iterable[str]) -> None:
    """Refuse columns whose values would be taken for Sluice's own, or be overwritten by them.

    Raises:
        HeaderInvalid: with the columns to be renamed.
    """
    taken = [repr(name) for name in names if name in RESERVED_NAMES]
    if taken:
        raise HeaderInvalid(f"rename the columns {', '.join(taken)}: Sluice writes its own columns under these names")
