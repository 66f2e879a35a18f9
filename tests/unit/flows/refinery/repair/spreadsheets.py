"""A model of how spreadsheet programs change cells when they open and save a file."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import openpyxl
from openpyxl.utils.escape import unescape

Cell = str | int | float | bool | None


def opened(path: Path) -> list[list[Cell]]:
    """Return the cells as Excel has them after opening a workbook or, by double-click, a CSV file."""
    if path.suffix == ".xlsx":
        rows = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
        return [[unescape(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    content = path.read_bytes()
    text = content.decode("utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "cp1252")
    return [[_opened_cell(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline=""))]


def _opened_cell(cell: str) -> Cell:
    as_text = re.fullmatch(r'="((?:[^"]|"")*)"', cell, re.DOTALL)
    if as_text:
        return as_text[1].replace('""', '"')
    if re.fullmatch(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?", cell):
        number = float(f"{float(cell):.15g}")
        return int(number) if number.is_integer() and abs(number) < 1e15 else number
    day = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", cell)
    if day and int(day[2]) <= 12 and int(day[3]) <= 28:
        return f"{day[3]}.{day[2]}.{day[1]}"
    if cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    return "#NAME?" if cell.startswith(("=", "+", "-", "@")) else cell


def saved_as_csv(rows: list[list[Cell]], path: Path, *, encoding: str, delimiter: str) -> None:
    """Save rows as Excel saves CSV, where a character that the encoding lacks becomes a question mark."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([[_shown(cell) for cell in row] for row in rows])
    path.write_bytes(text.getvalue().encode(encoding, errors="replace"))


def saved_as_workbook(rows: list[list[Cell]], path: Path) -> None:
    """Save rows as a workbook, in which numbers are stored as numbers."""
    book = openpyxl.Workbook()
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row, start=1):
            cell = book.active.cell(number, column)
            cell.value = value.replace("_x", "_x005F_x") if isinstance(value, str) else value
            if isinstance(value, str):
                cell.data_type = "s"  # otherwise openpyxl takes a string that starts with = for a formula
    book.save(path)


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return str(cell).upper() if isinstance(cell, bool) else str(cell)
