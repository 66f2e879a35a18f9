"""Write an XLSX workbook of one sheet in which every cell is text, in cells with the format Text."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from flows.refinery.errors import TerminalError

MAX_ROWS, MAX_COLUMNS, MAX_CELL_CHARACTERS = 1_048_576, 16_384, 32_767
_TEXT_FORMAT = 1  # the place of the style below that keeps cells as text, also those that are typed later
_ESCAPED = re.compile("_x[0-9A-Fa-f]{4}_|[\x00-\x08\x0b-\x1f\ufffe\uffff]")
_SHEETS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPES}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPES}.worksheet+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_TYPES}.styles+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_SHEETS}" xmlns:r="{_OFFICE}">'
    '<sheets><sheet name="quarantine" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
    "xl/styles.xml": f'<styleSheet xmlns="{_SHEETS}"><fonts count="1"><font/></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill>'
    '</fills><borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs>'
    '<cellXfs count="2"><xf/><xf numFmtId="49" applyNumberFormat="1"/></cellXfs></styleSheet>',
}


class WorkbookTooSmall(TerminalError):
    """The rows do not fit a workbook: spreadsheet programs limit its rows, its columns and the length of a text."""


def write_text_workbook(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a header and rows of texts.

    Raises:
        WorkbookTooSmall: they do not fit.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _PARTS.items():
            archive.writestr(name, _HEAD + content)
        with archive.open("xl/worksheets/sheet1.xml", "w") as sheet:
            # The format of the columns keeps what is typed into empty cells as text, too.
            columns = f'<cols><col min="1" max="{max(1, len(header))}" width="16" style="{_TEXT_FORMAT}"/></cols>'
            sheet.write(f'{_HEAD}<worksheet xmlns="{_SHEETS}">{columns}<sheetData>'.encode())
            for number, row in enumerate([header, *rows], start=1):
                _require_room(number, row)
                sheet.write(f"<row>{''.join(map(_cell, row))}</row>".encode())
            sheet.write(b"</sheetData></worksheet>")


def _require_room(number: int, row: Sequence[str]) -> None:
    if number > MAX_ROWS or len(row) > MAX_COLUMNS or any(len(text) > MAX_CELL_CHARACTERS for text in row):
        raise WorkbookTooSmall(
            f"row {number:,} does not fit a workbook, which holds {MAX_ROWS:,} rows of {MAX_COLUMNS:,} texts of"
            f" {MAX_CELL_CHARACTERS:,} characters; export to a .csv file, and correct it in a text editor"
        )


def _cell(text: str) -> str:
    if not text:
        return f'<c s="{_TEXT_FORMAT}"/>'
    written = escape(_ESCAPED.sub(_escaped_sign, text))
    return f'<c s="{_TEXT_FORMAT}" t="inlineStr"><is><t xml:space="preserve">{written}</t></is></c>'


def _escaped_sign(match: re.Match[str]) -> str:
    """Return a sign that XML cannot hold in Excel's notation, and a text that looks like that notation as itself."""
    sign = match[0][0]
    return f"_x{ord(sign):04X}_{match[0][1:]}"
