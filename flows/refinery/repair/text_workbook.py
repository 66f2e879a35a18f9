"""Write an XLSX workbook with one sheet, in which all cells contain text and have the number format Text."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from flows.refinery.errors import TerminalError

MAX_ROWS, MAX_COLUMNS, MAX_CELL_CHARACTERS = 1_048_576, 16_384, 32_767
_TEXT_FORMAT = {"num_format": "@"}
_COLUMN_WIDTH = 16  # characters


class WorkbookTooSmall(TerminalError):
    """The rows do not fit into a workbook: spreadsheet programs limit rows, columns and the characters in a cell."""


def write_text_workbook(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a workbook with a header and rows of strings. Raise WorkbookTooSmall if they do not fit."""
    from xlsxwriter import Workbook

    with Workbook(str(path), {"constant_memory": True}) as workbook:
        sheet, text_format = workbook.add_worksheet("quarantine"), workbook.add_format(_TEXT_FORMAT)
        # The columns have this format, too, so that values typed into empty cells stay text.
        sheet.set_column(0, max(0, len(header) - 1), _COLUMN_WIDTH, text_format)
        for place, row in enumerate([header, *rows]):
            _require_room(place + 1, row)
            for column, text in enumerate(row):
                if text:
                    sheet.write_string(place, column, text, text_format)


def _require_room(number: int, row: Sequence[str]) -> None:
    if number > MAX_ROWS or len(row) > MAX_COLUMNS or any(len(text) > MAX_CELL_CHARACTERS for text in row):
        raise WorkbookTooSmall(
            f"row {number:,} does not fit into a workbook, which can have {MAX_ROWS:,} rows, {MAX_COLUMNS:,} columns"
            f" and {MAX_CELL_CHARACTERS:,} characters per cell; export to a .csv file, and correct it in a text editor"
        )
