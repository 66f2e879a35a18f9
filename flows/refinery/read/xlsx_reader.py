"""Read XLSX into partitions. A workbook is read as a whole, so its unpacked size is measured first."""

import datetime as dt
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import IO, Any

from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from flows.refinery.contract.model import Contract
from flows.refinery.errors import FileRejected
from flows.refinery.read.columns import TEXT_TYPES, RowBuffer
from flows.refinery.read.header import check_header
from flows.refinery.read.partition import Limits, Partition, SourceFormat
from flows.refinery.read.rejections import (
    EmptyFile,
    FileTooLarge,
    FormatNotAllowed,
    HeaderInvalid,
    SheetMissing,
    SheetNotChosen,
    WorkbookBroken,
)
from flows.refinery.read.xlsx_texts import SHARED_TEXTS, SharedTexts
from flows.refinery.read.xlsx_unusable_cells import (
    ERROR_CELL,
    FORMULA_NOT_CALCULATED,
    NEVER_CALCULATED,
    NO_SUCH_DATE,
    REFERENCE,
    UnusableCells,
    column_number,
    may_have_unusable_cells,
    row_of,
    unusable_cells_of,
)
from flows.refinery.suggestions import did_you_mean

_OTHER_ARCHIVES = {
    "xl/workbook.bin": "a binary workbook (XLSB); save it as XLSX",
    "content.xml": "an OpenDocument file, as LibreOffice writes it (ODS); save it as XLSX",
    "word/document.xml": "a Word document; upload the table itself, as XLSX or CSV",
    "ppt/presentation.xml": "a PowerPoint presentation; upload the table itself, as XLSX or CSV",
    "index/document.iwa": "a Numbers or Pages document; export it as XLSX",
}
_UNKNOWN_ARCHIVE = (
    "a ZIP archive, but no XLSX workbook; upload the table itself, compressed with gzip or zstd if at all"
)
_MAX_PARTS = 10_000
_MAX_MERGED = 100_000  # if a workbook has more merged ranges, they are not counted
_PIECE_BYTES = 1 << 18
_MAX_TAG_BYTES = 1 << 20
# zipfile raises NotImplementedError for a compression or encryption that it cannot read.
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError)
_ENCRYPTED = 0x1
_MAX_NAMED = 5
_FIRST_YEAR = 1900
_ROW_OR_CELL = re.compile(rb"<(?:\w+:)?(c|row)[\s/>]")
_STYLES = "xl/styles.xml"
_MAX_STYLE_PIECES = 16
_PADDING_FORMAT = re.compile(rb'formatCode="(0{2,15})"')
_CELL_END = re.compile(rb"</(?:\w+:)?c\s*>|<(?:\w+:)?c(?:\s[^<>]*)?/>")


def read_xlsx(
    file: IO[bytes], contract: Contract, rows_per_partition: int, limits: Limits, compression: Any
) -> Iterator[Partition]:
    """Read one sheet of a workbook. The first row after `skip_lines` that is not blank is the header. Blank rows are
    skipped.

    Whole numbers become integers, because XLSX has only one type of number. Of merged cells, only the first one has the
    value.

    Raises:
        EmptyFile, ExpandsTooMuch, FileTooLarge, FormatNotAllowed, HeaderInvalid, SheetMissing, SheetNotChosen,
        TooManyColumns, TooManyRows, WorkbookBroken
    """
    faults, merged_tags = _require_harmless(file, limits)
    file.seek(0)
    name, others, merged_ranges, sheet = _sheet_rows(file, contract, counts_merged=0 < merged_tags <= _MAX_MERGED)
    errors = unusable_cells_of(name, faults, lambda part: _content(file, part)) if faults else UnusableCells()
    rows = enumerate(sheet, start=1)
    for _ in range(contract.format.skip_lines):
        next(rows, None)
    number, header = next(((n, row) for n, row in rows if not _is_blank(row) or errors.of(n)), (0, None))
    if header is None:
        _require_chosen(contract, name, others)
        raise EmptyFile("the sheet is empty")
    if errors.of(number):
        raise HeaderInvalid(
            f"row {number}: the header has a cell with the error {errors.of(number)}; write the column's name there"
        )
    names = _names(header, number, limits)
    found = SourceFormat(
        type="xlsx",
        compression=compression,
        sheet=name,
        other_sheets=tuple(others),
        merged_ranges=merged_ranges,
        padding_formats=_padding_formats(file),
    )
    pending = RowBuffer(contract, limits, found)
    yield from _partitions(rows, names, errors, contract, min(rows_per_partition, limits.max_rows), pending)
    if not pending.total:
        _require_chosen(contract, name, others)


def _require_chosen(contract: Contract, name: str, others: list[str]) -> None:
    """Raise SheetNotChosen if a sheet without rows was read only because it is the first of several. It may be a cover
    page."""
    if others and "sheet" not in contract.format.model_fields_set:
        raise SheetNotChosen(
            f"the first sheet, {name!r}, has no rows, and the workbook has other sheets: {_listed(others)};"
            f" write which one to read, as `sheet: {others[0]}` under `format`"
        )


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(map(repr, names[:_MAX_NAMED])) + rest


def _partitions(
    rows: Iterator[tuple[int, list[Any]]],
    names: list[str],
    errors: UnusableCells,
    contract: Contract,
    rows_per_partition: int,
    pending: RowBuffer,
) -> Iterator[Partition]:
    for number, row in rows:
        error = errors.of(number)
        if _is_blank(row) and error is None:
            continue
        for place, value in enumerate(row[len(names) :], start=len(names) + 1):
            if not _is_empty(value):
                raise HeaderInvalid(
                    f"cell {_cell(place, number)} has a value, and its column has no name;"
                    " name it, or, if the header is on a later row, write `skip_lines` under `format` in the contract"
                )
        reason = FORMULA_NOT_CALCULATED if error == NEVER_CALCULATED else ERROR_CELL
        if error is None and (odd := _no_such_date(row, number, errors)):
            reason, error = NO_SUCH_DATE, f"the number in {_cell(odd, number)} is not a date that exists"
        if error is None:
            pending.add(row)
        else:  # an error is neither a value nor a missing value
            cells = ",".join("" if _is_empty(value) else str(_value(value)) for value in row)
            pending.add_misfit(reason, f"{error} in row {number}: {cells}")
        if len(pending) == rows_per_partition:
            yield pending.take(_columns(pending.rows, names, contract))
    if len(pending) or not pending.total:
        yield pending.take(_columns(pending.rows, names, contract))


def _no_such_date(row: list[Any], number: int, errors: UnusableCells) -> int | None:
    """Return the number (from 1) of the first column with a date that does not exist (Excel's day 60, 1900-02-29, or a
    day before day 0), or None if there is none."""
    if not errors or not any(isinstance(value, dt.date | dt.time) for value in row):
        return None
    places = errors.numbers_that_are_no_day(number)
    return next((place for place in places if place <= len(row) and _is_made_up(row[place - 1])), None)


def _is_made_up(value: Any) -> bool:
    """Return whether the workbook library returns this date or time for a number that is not a valid day."""
    if isinstance(value, dt.date):
        return (value.year, value.month, value.day) == (1900, 2, 28) or value.year < _FIRST_YEAR
    return isinstance(value, dt.time)


def _columns(rows: list[list[Any]], names: list[str], contract: Contract) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for place, name in enumerate(names):
        column = contract.columns.get(name)
        values = [_value(row[place]) if place < len(row) else None for row in rows]
        if column is not None and column.type in TEXT_TYPES:
            values = [_text_of_number(value) for value in values]
        columns[name] = values
    return columns


def _value(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dt.timedelta):
        return _duration(value)
    return None if _is_empty(value) else value


def _duration(value: dt.timedelta) -> str:
    """Format a duration in hours, as spreadsheet programs show it: 30:05:00, not 1 day, 6:05:00."""
    seconds, rest = divmod(abs(value), dt.timedelta(seconds=1))
    fraction = f".{rest.microseconds:06d}" if rest else ""
    sign = "-" if value < dt.timedelta() else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"


def _text_of_number(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_empty(value: Any) -> bool:
    return value is None or value == ""


def _is_blank(row: list[Any]) -> bool:
    return all(map(_is_empty, row))


def _names(header: list[Any], number: int, limits: Limits) -> list[str]:
    names = [str(_value(value)) if not _is_empty(value) else "" for value in header]
    while names and not names[-1].strip():
        names.pop()
    check_header(names, limits, place_of=lambda place: f"cell {_cell(place, number)}")
    return names


def _cell(column: int, row: int) -> str:
    """Return a cell's name in spreadsheets, such as B3; column and row are counted from 1."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return f"{letters}{row}"


def _sheet_rows(
    file: IO[bytes], contract: Contract, *, counts_merged: bool
) -> tuple[str, list[str], int, Iterator[list[Any]]]:
    """Return the sheet's name, the names of the other visible sheets, the number of its merged ranges (0 unless
    `counts_merged`), and its rows, in which cells with an error are empty."""
    try:
        workbook = CalamineWorkbook.from_filelike(file)
        sheets = [sheet for sheet in workbook.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
        visible = [sheet.name for sheet in sheets if sheet.visible == SheetVisibleEnum.Visible]
        name = _sheet_name(visible, [sheet.name for sheet in sheets], contract.format.sheet)
        others = [other for other in visible if other != name]
        sheet = workbook.get_sheet_by_name(name)
        merged_ranges = len(sheet.merged_cell_ranges or ()) if counts_merged else 0
        return name, others, merged_ranges, iter(sheet.to_python(skip_empty_area=False))
    except (FileRejected, MemoryError):
        raise
    except BaseException as error:
        # A panic in the Rust library is raised as PanicException, which is not an Exception.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise WorkbookBroken(f"the workbook cannot be read: {type(error).__name__}") from None
        raise


def _sheet_name(visible: list[str], names: list[str], wanted: str | int) -> str:
    """Return the name of the sheet to read. If `wanted` is a number, it is an index (from 0) among the visible
    worksheets; a hidden worksheet can be read by name. Raise SheetMissing if there is no such sheet."""
    if isinstance(wanted, int) and 0 <= wanted < len(visible):
        return visible[wanted]
    if isinstance(wanted, str) and wanted in names:
        return wanted
    listed = f": {_listed(visible)}; write one of them as `sheet` under `format`" if visible else ""
    raise SheetMissing(
        f"there is no visible sheet {wanted!r}{did_you_mean(str(wanted), visible)}"
        f" (there are {len(visible)} visible sheets{listed})"
    )


# --- before unpacking ---------------------------------------------------------------------------------------


def _require_harmless(file: IO[bytes], limits: Limits) -> tuple[dict[str, UnusableCells], int]:
    """Unpack every part in small pieces, without keeping them, and reject a workbook that would take too much memory.

    This is necessary because the sizes in a ZIP archive may be false, and a sheet with two cells can span 17 billion
    cells.

    Returns:
        the unusable cells by part, for parts that have any; the number of merged ranges in the workbook.
    """
    archive = _archive(file)
    parts = archive.infolist()
    left = limits.max_workbook_bytes
    faults: dict[str, UnusableCells] = {}
    texts = SharedTexts()
    most_cells = merged_tags = 0
    for part in parts:
        extent = _Extent(limits.max_workbook_cells)  # for every part, because any part can be declared as a sheet
        for piece in _pieces(archive, part):
            left -= len(piece)
            if left < 0:
                raise FileTooLarge(f"the workbook unpacks to more than {limits.max_workbook_bytes} bytes")
            extent.look_at(piece)
            if part.filename.lower() == SHARED_TEXTS:
                texts.look_at(piece)
        if extent.cells > limits.max_workbook_cells:
            raise FileTooLarge(
                f"a sheet spans {extent.cells} cells; at most {limits.max_workbook_cells} are read;"
                " delete stray cells far from the table, or upload CSV or Parquet"
            )
        if extent.errors:
            faults[part.filename.lower()] = extent.errors
        most_cells = max(most_cells, extent.cell_tags)
        merged_tags += extent.merged_tags
    texts.require_honest_claim()
    if texts.longest * most_cells > limits.max_workbook_bytes:
        for part in parts:
            texts.require_few(_pieces(archive, part), limits.max_workbook_bytes)
    return faults, merged_tags


def _archive(file: IO[bytes]) -> zipfile.ZipFile:
    """Open the workbook as a ZIP archive. Raise WorkbookBroken or FormatNotAllowed if it is not a workbook."""
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_FAULTS as error:
        raise WorkbookBroken("the XLSX file is damaged or cut short: its list of parts cannot be read") from error
    parts = archive.infolist()
    if not any(part.filename.lower() == "xl/workbook.xml" for part in parts):
        names = {part.filename.lower() for part in parts}
        kind = next((kind for name, kind in _OTHER_ARCHIVES.items() if name in names), _UNKNOWN_ARCHIVE)
        raise FormatNotAllowed(f"this is {kind}")
    if len(parts) > _MAX_PARTS:
        raise WorkbookBroken(f"the workbook has {len(parts)} parts; at most {_MAX_PARTS} are read")
    return archive


def _content(file: IO[bytes], name: str) -> bytes:
    """Return the content of a part, or b"" if there is no such part. The part's size must have been checked before."""
    with zipfile.ZipFile(file) as archive:
        parts = [part for part in archive.infolist() if part.filename.lower() == name]
        return b"".join(piece for part in parts[-1:] for piece in _pieces(archive, part))


def _padding_formats(file: IO[bytes]) -> tuple[str, ...]:
    """Return the number formats in a workbook that show leading zeros, such as 00000, which the values do not have.
    Most workbooks have none."""
    with zipfile.ZipFile(file) as archive:
        parts = [part for part in archive.infolist() if part.filename.lower() == _STYLES]
        beginning = b"".join(
            piece for part in parts[-1:] for piece in islice(_pieces(archive, part), _MAX_STYLE_PIECES)
        )
    return tuple(dict.fromkeys(code.decode() for code in _PADDING_FORMAT.findall(beginning)))[:_MAX_NAMED]


def _pieces(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield a part's unpacked content in pieces, whatever size its header declares."""
    if part.flag_bits & _ENCRYPTED or part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WorkbookBroken("the workbook is encrypted or packed by an unusual method")
    part.file_size = sys.maxsize  # zipfile stops at this size, so a false size would hide the rest
    try:
        with archive.open(part) as content:
            yield from iter(partial(content.read, _PIECE_BYTES), b"")
    except _ZIP_FAULTS as error:
        raise WorkbookBroken("the XLSX file is damaged or cut short: a part cannot be unpacked") from error


class _Extent:
    """Determines the extent of a sheet's cells, and which are unusable, by searching its XML without parsing it."""

    def __init__(self, max_cells: int) -> None:
        self.errors = UnusableCells(max_cells)
        self._row = 0
        self._tail = b""
        self._last_row = self._last_cell_row = self._last_column = 0
        self.cell_tags = self.merged_tags = self._references = self._rows = 0
        self._cells_in_row = self._most_cells_in_a_row = 0

    def look_at(self, piece: bytes) -> None:
        """Process the next piece of the sheet's XML."""
        text = self._tail + piece
        end = _end_of_cells(text)  # so that each tag and each cell is processed once, as a whole
        text, self._tail = text[:end], text[end:]
        if len(self._tail) > _MAX_TAG_BYTES:
            raise WorkbookBroken("a part of the workbook has a longer tag or text than spreadsheet programs write")
        self.merged_tags += text.count(b"mergeCell ")
        may_err = may_have_unusable_cells(text)
        start = None
        for match in _ROW_OR_CELL.finditer(text):
            if may_err and start is not None:
                self.errors.look_at(text, start, match.start(), self._row, self._cells_in_row)
            start = None
            if match[1] == b"c":
                start = match.start()
                self.cell_tags += 1
                self._cells_in_row += 1
                self._most_cells_in_a_row = max(self._most_cells_in_a_row, self._cells_in_row)
            else:
                self._rows += 1
                self._cells_in_row = 0
                self._row = row_of(text, match.start(), self._row + 1)
        if may_err and start is not None:
            self.errors.look_at(text, start, len(text), self._row, self._cells_in_row)
        for match in REFERENCE.finditer(text):
            self._references += 1
            self._last_row = max(self._last_row, int(match[2]))
            if match[1]:
                self._last_cell_row = max(self._last_cell_row, int(match[2]))
                self._last_column = max(self._last_column, column_number(match[1]))

    @property
    def cells(self) -> int:
        """Return an upper bound for the number of cells that the workbook library creates: rows times columns."""
        if self._references >= self.cell_tags + self._rows:
            return self._last_cell_row * self._last_column
        # A cell or row without a reference follows the previous one.
        return max(self.cell_tags, (self._last_row + self._rows) * (self._last_column + self._most_cells_in_a_row))


def _end_of_cells(text: bytes) -> int:
    """Return the end of the last tag, or the beginning of the last cell if that cell is not complete."""
    end = text.rfind(b">") + 1
    last = max(text.rfind(b"<c "), text.rfind(b"<c>"), text.rfind(b"<", 0, text.rfind(b":c ") + 1))
    is_cell = last >= 0 and (match := _ROW_OR_CELL.match(text, last)) is not None and match[1] == b"c"
    return last if is_cell and not _CELL_END.search(text, last) else end
