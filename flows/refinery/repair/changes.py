"""Compare a corrected file with the exported rows: find every changed cell, and turn the changes into corrections."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from flows.refinery.errors import TerminalError
from flows.refinery.read.header import DROP, QUARANTINE_COLUMNS
from flows.refinery.repair.corrected_file import CorrectedFile, read_corrected_file
from flows.refinery.repair.corrections import DROPPED, Corrections, CorrectionsUnusable, listed
from flows.refinery.repair.quarantined_rows import QuarantinedRow
from flows.refinery.repair.spreadsheet_texts import unprotected
from flows.refinery.words import counted

_NAMED_COLUMNS = 10
_MARKS = {"drop": DROPPED, "yes": DROPPED, "no": None, "": None}  # the words allowed in the column DROP


class OtherCellsChanged(TerminalError):
    """Some changed cells broke no rule. A spreadsheet program may have changed them when it saved the file."""


@dataclass(frozen=True)
class Change:
    """A changed cell in a corrected file. `before` and `after` contain data: show them only in a terminal, and do not
    log them."""

    row_number: int
    column: str
    before: str | None
    after: str | None
    was_bad: bool  # the result of `QuarantinedRow.is_bad` for this column


def changes_in(path: Path, quarantined: Mapping[int, QuarantinedRow]) -> tuple[Change, ...]:
    """Return the cells of a corrected file that differ from the quarantined rows, ordered by row number.

    A cell that was not bad also counts as unchanged if it has the same number in a different notation, because
    spreadsheet programs reformat numbers. A word that drops a row is a change in the column DROP.

    Raises:
        CorrectionsUnusable: the file cannot be read, has a row that is not in `quarantined`, or has a word in DROP that
            is not allowed.
    """
    file = read_corrected_file(path, {number: row.values for number, row in quarantined.items()})
    unknown = sorted(set(file.rows) - set(quarantined))
    if unknown:
        raise CorrectionsUnusable(f"row {unknown[0]} is not in the quarantine of this run")
    columns = [name for name in file.columns if name not in QUARANTINE_COLUMNS]
    found = (_change(file, number, column, quarantined[number]) for number in sorted(file.rows) for column in columns)
    return tuple(change for change in found if change is not None)


def require_only_bad_cells(changes: tuple[Change, ...]) -> None:
    """Raise OtherCellsChanged, naming rows and columns, if cells changed that were not bad."""
    others = [change for change in changes if not change.was_bad]
    if others:
        names = list(dict.fromkeys(change.column for change in others))
        more = f" and {len(names) - _NAMED_COLUMNS} more" if len(names) > _NAMED_COLUMNS else ""
        raise OtherCellsChanged(
            f"{counted(len(others), 'cell')} changed that broke no rule, in"
            f" {listed({change.row_number for change in others})}, columns"
            f" {', '.join(map(repr, names[:_NAMED_COLUMNS]))}{more}. If a spreadsheet program changed them, export the"
            " rows again to a .xlsx file, which keeps text as it is; if the changes are intended, allow them"
            " with --allow-other-changes"
        )


def corrections_of(changes: tuple[Change, ...], quarantined: Mapping[int, QuarantinedRow]) -> Corrections:
    """Return corrections that contain every cell of the changed rows: changed cells have their new values, the others
    their original values."""
    rows: dict[int, dict[str, str | None]] = {}
    for change in changes:
        row = rows.setdefault(change.row_number, dict(quarantined[change.row_number].values))
        row[change.column] = change.after
    return Corrections(tuple(dict.fromkeys(name for row in rows.values() for name in row)), rows)


def _change(file: CorrectedFile, number: int, column: str, exported: QuarantinedRow) -> Change | None:
    before, cell = exported.values.get(column) or None, file.rows[number][column]
    after = unprotected(cell) if file.may_be_protected and cell is not None else cell
    if column == DROP:
        cell = after = _mark(number, after)
    was_bad = exported.is_bad(column)
    same = _same_text(before, cell) or _same_text(before, after) or (not was_bad and _same_number(before, after))
    return None if same else Change(number, column, before, after or None, was_bad)


def _mark(number: int, text: str | None) -> str | None:
    """Convert a word from the column DROP to its value in `Corrections`. Raise CorrectionsUnusable if it is unknown."""
    word = (text or "").strip().lower()
    if word not in _MARKS:  # the message omits the word, which may be a value from another column
        raise CorrectionsUnusable(
            f"row {number}: {DROP} must be drop or yes, to drop the row, or no or empty, to keep it"
        )
    return _MARKS[word]


def _same_text(before: str | None, after: str | None) -> bool:
    """Return whether two cells are equal. Differences in line ends are ignored, and a missing cell equals an empty one,
    because CSV does not distinguish them."""
    return (before or "").replace("\r\n", "\n") == (after or "").replace("\r\n", "\n")


def _same_number(before: str | None, after: str | None) -> bool:
    try:
        return before is not None and after is not None and Decimal(before) == Decimal(after)
    except InvalidOperation:
        return False
