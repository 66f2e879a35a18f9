"""Cells of a workbook that hold an error (#DIV/0!, #N/A), found in its XML: the reader gives them as empty cells."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping

from flows.refinery.read.rejections import WorkbookBroken

ERROR_CELL = "error_cell"
REFERENCE = re.compile(rb"\br\s*=\s*[\"']\s*([A-Za-z]{0,7})(\d{1,10})")

_KINDS = ("an error", "#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA")
_IS_ERROR = re.compile(rb"\st\s*=\s*[\"']\s*e\s*[\"']")
_VALUE = re.compile(rb"(?:<(?:\w+:)?f\b[^<>]*>(?:[^<>]*</(?:\w+:)?f\s*>)?)?\s*<(?:\w+:)?v[^<>]*>([^<>]{1,20})<")
_SHEET = re.compile(rb"<(?:\w+:)?sheet\s[^<]*")
_RELATION = re.compile(rb"<(?:\w+:)?Relationship\s[^<]*")
_ATTRIBUTE = re.compile(r"([\w.-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_WORKBOOK, _RELATIONS = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"


class ErrorCells:
    """The rows of one sheet in which a cell holds an error, one byte for each row up to the last of them.

    Args:
        max_rows: errors further down are not kept; a sheet that reaches so far is not read.
    """

    def __init__(self, max_rows: int = 0) -> None:
        self._max_rows = max_rows
        self._kinds = bytearray()

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def of(self, row: int) -> str | None:
        """The first error in a row (from 1); None where there is none."""
        kind = self._kinds[row] if row < len(self._kinds) else 0
        return _KINDS[kind - 1] if kind else None

    def look_at(self, text: bytes, start: int, row: int) -> None:
        """Take one cell.

        Args:
            start: where its tag begins in a piece of the sheet's XML.
            row: that it is in, where it does not give one itself.
        """
        end = text.find(b">", start)
        if not _IS_ERROR.search(text, start, end):
            return
        row = row_of(text, start, row)
        if row > self._max_rows:
            return
        self._kinds.extend(bytes(max(0, row + 1 - len(self._kinds))))
        value = _VALUE.match(text, end + 1)
        shown = value[1].decode("ascii", errors="replace").strip() if value else ""
        self._kinds[row] = self._kinds[row] or (_KINDS.index(shown) if shown in _KINDS else 0) + 1


def has_error_cell(text: bytes) -> bool:
    """Whether a piece of a sheet's XML may hold a cell with an error."""
    return _IS_ERROR.search(text) is not None


def row_of(text: bytes, start: int, otherwise: int) -> int:
    """The row that the tag of a row or cell gives as its place."""
    given = REFERENCE.search(text, start, text.find(b">", start))
    return int(given[2]) if given else otherwise


def sheet_errors(name: str, faults: Mapping[str, ErrorCells], content: Callable[[str], bytes]) -> ErrorCells:
    """The errors in the sheet of this name.

    Args:
        faults: by part of the workbook (in lower case) the errors in it.
        content: gives a part's content.

    Raises:
        WorkbookBroken: the part that holds the sheet cannot be found.
    """
    sheets = [_attributes(tag) for tag in _SHEET.findall(content(_WORKBOOK))]
    relations = [_attributes(tag) for tag in _RELATION.findall(content(_RELATIONS))]
    targets = {relation.get("Id"): relation.get("Target") for relation in relations}
    target = next((targets.get(sheet.get("id")) for sheet in sheets if sheet.get("name") == name), None)
    if target is None:
        raise WorkbookBroken(
            "cells of the workbook hold errors (as #N/A), in a sheet that cannot be found; clear them, or upload CSV"
        )
    target = target.removeprefix("/").lower()
    return faults.get(target if target.startswith("xl/") else f"xl/{target}") or ErrorCells()


def _attributes(tag: bytes) -> dict[str, str]:
    text = tag.decode("utf-8", errors="replace")
    return {name: html.unescape(quoted or single) for name, quoted, single in _ATTRIBUTE.findall(text)}
