"""Check a file's header: each column must have a name, which must be unique and not reserved for Sluice's columns."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from flows.refinery.read.partition import Limits
from flows.refinery.read.rejections import HeaderInvalid, TooManyColumns

GOOD_ROW_NUMBER = "_sluice_row_number"  # in the file of good rows
QUARANTINE_COLUMNS = ("_row_number", "_rules", "_values", "_raw")  # in the file of bad rows
DROP = "_sluice_drop"  # in bad rows that were exported for correction, and in corrections
_BY_COLUMNS = (
    "or name all columns under `columns`, and under `format` write `header: false` and `skip_lines` with the number of"
    " the header's line"
)
_ROW_NAMES = "pandas and R write row names like this, unless index=False or row.names = FALSE is set"
RESERVED_NAMES = frozenset({GOOD_ROW_NUMBER, DROP, *QUARANTINE_COLUMNS})


def check_header(
    names: Sequence[str],
    limits: Limits,
    where: str = "",
    place_of: Callable[[int], str] = "column {}".format,
    hint: str | None = None,
    can_be_named: bool = False,
) -> None:
    """Check the number of columns and their names.

    Args:
        where: the header's position in the file, with which messages begin.
        place_of: returns a column's position for messages, given its number from 1.
        hint: the likely cause of a column without a name, and the line to write into the contract.
        can_be_named: whether a contract can name the columns instead, as in CSV.

    Raises:
        TooManyColumns: there are more columns than the limit.
        HeaderInvalid: a name is missing or not unique.
    """
    if len(names) > limits.max_columns:
        raise TooManyColumns(f"{where}{len(names)} columns; at most {limits.max_columns} are read")
    for place, name in enumerate(names, start=1):
        if not name.strip():
            known = _ROW_NAMES + (f"; {_BY_COLUMNS}" if can_be_named else "") if place == 1 else None
            usual = "name it in the file; if the header is on a later line, write `skip_lines` under `format`"
            raise HeaderInvalid(f"{where}{place_of(place)} has no name; {hint or known or usual}")
    for first, count in Counter(names).most_common(1):
        if count > 1:
            usual = _BY_COLUMNS if can_be_named else "and make sure that there is a header"
            places = [place_of(place) for place, name in enumerate(names, start=1) if name == first]
            # The message omits the name, which is a data value if the file has no header.
            raise HeaderInvalid(f"{where}{', '.join(places[:10])} have the same name; give each its own name, {usual}")


def require_free_names(names: Iterable[str]) -> None:
    """Raise HeaderInvalid if columns have names that Sluice uses for its own columns. The message lists them."""
    taken = [repr(name) for name in names if name in RESERVED_NAMES]
    if taken:
        raise HeaderInvalid(f"rename the columns {', '.join(taken)}: Sluice writes its own columns under these names")
