"""Find the cells of a workbook that have no usable value: errors (#DIV/0!, #N/A), formulas that were never calculated,
and dates that do not exist. The XML is searched for them, because the workbook library returns them as empty or with a
different value."""

import html
import re
from array import array
from collections.abc import Callable, Mapping

import numpy as np

from flows.refinery.read.rejections import WorkbookBroken

ERROR_CELL = "error_cell"
FORMULA_NOT_CALCULATED = "formula_not_calculated"
NO_SUCH_DATE = "no_such_date"
NEVER_CALCULATED = "a formula that was never calculated"
REFERENCE = re.compile(rb"\br\s*=\s*[\"']\s*([A-Za-z]{0,7})(\d{1,10})")

_KINDS = ("an error", "#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA")
_MARKS = (*_KINDS, NEVER_CALCULATED)
_IS_ERROR = re.compile(rb"\st\s*=\s*[\"']\s*e\s*[\"']")
_VALUE = re.compile(rb"(?:<(?:\w+:)?f\b[^<>]*>(?:[^<>]*</(?:\w+:)?f\s*>)?)?\s*<(?:\w+:)?v[^<>]*>([^<>]{1,20})<")
# Excel writes a formula's empty text as a text value; only other programs write a formula without any value.
_FORMULA = re.compile(
    rb"[^<>]*>\s*<(?:\w+:)?f(?:\s[^<>]*)?(?:/>|(?<!/)>[^<>]*</(?:\w+:)?f\s*>)\s*"
    rb"(?:</(?:\w+:)?c\s*>|<(?:\w+:)?v[^<>]*(?:/>|>\s*(0(?:\.0*)?)?\s*</))"
)
_IS_TEXT = re.compile(rb"\st\s*=\s*[\"'](?:str|s|inlineStr|b)[\"']")
_HAS_STYLE = re.compile(rb"\ss\s*=\s*[\"']")
# Excel's day 60 is 1900-02-29, which does not exist; nor does any day before its day 0.
_ODD_NUMBER = re.compile(rb"<(?:\w+:)?v[^<>]*>\s*(?:60(?:\.[0-9]*)?\s*<|-)")
_TO_BE_LOOKED_AT = re.compile(rb"<(?:\w+:)?f[\s/>]|" + _IS_ERROR.pattern + b"|" + _ODD_NUMBER.pattern)
_FULL_CALCULATION = re.compile(rb"\sfullCalcOnLoad\s*=\s*[\"'](?:1|true)[\"']")
_SHEET = re.compile(rb"<(?:\w+:)?sheet\s[^<]*")
_RELATION = re.compile(rb"<(?:\w+:)?Relationship\s[^<]*")
_ATTRIBUTE = re.compile(r"([\w.-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_WORKBOOK, _RELATIONS = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"


class UnusableCells:
    """The rows of one sheet that have cells without a usable value. They take at most two bytes per row, and eight
    bytes per number that is not a valid day.

    Args:
        max_rows: cells in later rows are ignored, because a sheet with more rows is rejected.
    """

    def __init__(self, max_rows: int = 0) -> None:
        self._max_rows = max_rows
        self._kinds = bytearray()
        self._zeros = bytearray()  # rows with a formula whose value is 0, which some programs write for every formula
        self._odd_numbers = array("Q")  # row and column of numbers that are not a valid day
        self._sorted: np.ndarray | None = None

    def __bool__(self) -> bool:
        return bool(self._kinds or self._zeros or self._odd_numbers)

    def of(self, row: int) -> str | None:
        """Return the first error in the cells of a row (counted from 1), or None if there is none."""
        kind = self._kinds[row] if row < len(self._kinds) else 0
        return _MARKS[kind - 1] if kind else None

    def numbers_that_are_no_day(self, row: int) -> list[int]:
        """Return the columns (from 1) of a row's cells with a number that, if read as a date, is not a valid day."""
        if self._sorted is None:
            self._sorted = np.sort(np.array(self._odd_numbers, dtype=np.uint64))
        first, end = np.searchsorted(self._sorted, np.array([row << 16, (row + 1) << 16], dtype=np.uint64))
        return [int(place) & 0xFFFF for place in self._sorted[first:end]]

    def take_zeros(self) -> None:
        """Treat formulas with the value 0 as never calculated. This is right if the workbook requests a full
        recalculation when it is opened."""
        for row, is_zero in enumerate(self._zeros):
            if is_zero:
                self._mark(row, NEVER_CALCULATED)

    def look_at(self, text: bytes, start: int, end: int, row: int, column: int) -> None:
        """Check one cell, and record it if it has no usable value.

        Args:
            start, end: the cell's position in a piece of the sheet's XML.
            row, column: the cell's position in the sheet, used if the cell has no reference.
        """
        tag_end = text.find(b">", start)
        given = REFERENCE.search(text, start, tag_end)
        row = int(given[2]) if given else row
        if row > self._max_rows:
            return
        if _IS_ERROR.search(text, start, tag_end):
            value = _VALUE.match(text, tag_end + 1)
            shown = value[1].decode("ascii", errors="replace").strip() if value else ""
            self._mark(row, shown if shown in _KINDS else _KINDS[0])
        elif not _IS_TEXT.search(text, start, tag_end):
            formula = _FORMULA.match(text, start + 1, end)
            if formula and formula[1]:
                _grow(self._zeros, row)
                self._zeros[row] = 1
            elif formula:
                self._mark(row, NEVER_CALCULATED)
            elif _HAS_STYLE.search(text, start, tag_end) and _ODD_NUMBER.search(text, tag_end, end):
                column = column_number(given[1]) if given and given[1] else column
                self._odd_numbers.append(row << 16 | min(column, 0xFFFF))

    def _mark(self, row: int, kind: str) -> None:
        _grow(self._kinds, row)
        self._kinds[row] = self._kinds[row] or _MARKS.index(kind) + 1


def _grow(rows: bytearray, row: int) -> None:
    rows.extend(bytes(max(0, row + 1 - len(rows))))


def may_have_unusable_cells(text: bytes) -> bool:
    """Return whether a piece of a sheet's XML may contain a cell that needs checking."""
    return _TO_BE_LOOKED_AT.search(text) is not None


def column_number(letters: bytes) -> int:
    """Convert the letters of a column to its number, from 1."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number


def row_of(text: bytes, start: int, otherwise: int) -> int:
    """Return the row number in the reference of a row or cell tag, or `otherwise` if the tag has no reference."""
    given = REFERENCE.search(text, start, text.find(b">", start))
    return int(given[2]) if given else otherwise


def unusable_cells_of(name: str, faults: Mapping[str, UnusableCells], content: Callable[[str], bytes]) -> UnusableCells:
    """Return the unusable cells of the sheet with this name.

    Args:
        faults: the unusable cells, by the name of the workbook's part in lower case.
        content: returns a part's content, by its name.

    Raises:
        WorkbookBroken: the sheet's part cannot be found.
    """
    workbook = content(_WORKBOOK)
    sheets = [_attributes(tag) for tag in _SHEET.findall(workbook)]
    relations = [_attributes(tag) for tag in _RELATION.findall(content(_RELATIONS))]
    targets = {relation.get("Id"): relation.get("Target") for relation in relations}
    target = next((targets.get(sheet.get("id")) for sheet in sheets if sheet.get("name") == name), None)
    if target is None:
        raise WorkbookBroken(
            "cells of the workbook contain errors (such as #N/A) or formulas without a value, in a sheet that cannot"
            " be found; clear them, or upload CSV"
        )
    target = target.removeprefix("/").lower()
    errors = faults.get(target if target.startswith("xl/") else f"xl/{target}") or UnusableCells()
    if _FULL_CALCULATION.search(workbook):
        errors.take_zeros()
    return errors


def _attributes(tag: bytes) -> dict[str, str]:
    text = tag.decode("utf-8", errors="replace")
    return {name: html.unescape(quoted or single) for name, quoted, single in _ATTRIBUTE.findall(text)}
