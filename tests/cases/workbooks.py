"""Cases with XLSX workbooks: sheets, formulas, dates that do not exist, times, number formats and durations."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import openpyxl
from openpyxl.chart import BarChart

from tests.cases.case import Case

_CONTENT_TYPES = (
    b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    b'<Default Extension="xml" ContentType="application/xml"/></Types>'
)
_MAIN = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_RELATION = b"http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def _saved(book: openpyxl.Workbook) -> bytes:
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def workbook(*rows: Sequence[Any], change: Callable[[openpyxl.Workbook], None] | None = None) -> bytes:
    """Return the bytes of a workbook with the given rows in its sheet "Data", to which `change` has been applied."""
    book = openpyxl.Workbook()
    book.active.title = "Data"
    for row in rows:
        book.active.append(row)
    if change:
        change(book)
    return _saved(book)


def raw_workbook(sheet_data: bytes, shared: bytes = b"", calculation: bytes = b"") -> bytes:
    """Return the bytes of a workbook with XML that openpyxl would not write, for the rows of its only sheet, its shared
    strings and its calculation settings."""
    parts = {
        "[Content_Types].xml": _CONTENT_TYPES,
        "_rels/.rels": b'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        b'<Relationship Id="r1" Type="%s/officeDocument" Target="xl/workbook.xml"/></Relationships>' % _RELATION,
        "xl/workbook.xml": b'<workbook %s xmlns:r="%s"><sheets><sheet name="S" sheetId="1" r:id="r1"/></sheets>%s'
        b"</workbook>" % (_MAIN, _RELATION, calculation),
        "xl/_rels/workbook.xml.rels": b"<Relationships"
        b' xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        b'<Relationship Id="r1" Type="%s/worksheet" Target="worksheets/sheet1.xml"/>'
        b'<Relationship Id="r2" Type="%s/sharedStrings" Target="sharedStrings.xml"/></Relationships>'
        % (_RELATION, _RELATION),
        "xl/worksheets/sheet1.xml": b"<worksheet %s><sheetData>%s</sheetData></worksheet>" % (_MAIN, sheet_data),
    }
    if shared:
        parts["xl/sharedStrings.xml"] = shared
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return content.getvalue()


def _with_sheet(state: str, *, first: bool = True) -> Callable[[openpyxl.Workbook], None]:
    def change(book: openpyxl.Workbook) -> None:
        sheet = book.create_sheet("lists", 0 if first else None)
        sheet.append(["k", "v"])
        sheet.append(["lookup", 1])
        sheet.sheet_state = state
        book.active = 1 if first else 0

    return change


def _with_chart_first(book: openpyxl.Workbook) -> None:
    book.create_chartsheet("Chart", 0).add_chart(BarChart())


def _with_cover(book: openpyxl.Workbook) -> None:
    book.create_sheet("Cover", 0).append(["See the next sheet"])


def _date_cells(column: str) -> Callable[[openpyxl.Workbook], None]:
    def change(book: openpyxl.Workbook) -> None:
        for cell in book.active[column][1:]:
            cell.number_format = "yyyy-mm-dd"

    return change


def _padded_cells(book: openpyxl.Workbook) -> None:
    for cell in book.active["B"][1:]:
        cell.number_format = "00000"


def _merged_cells(book: openpyxl.Workbook) -> None:
    book.active.merge_cells("A2:A3")


def _duration_cells(book: openpyxl.Workbook) -> None:
    for cell in book.active["B"][1:]:
        cell.number_format = "[h]:mm:ss"


_HEADER = b'<row r="1"><c r="A1" t="str"><v>id</v></c><c r="B1" t="str"><v>gross</v></c></row>'
_TYPED = {"columns": {"id": {"type": "integer"}, "gross": {"type": "number"}}}
_DATES = (["id", "d"], [1, 59], [2, 60], [3, 61], [4, -1], [5, 60.5])

CASES = (
    Case(
        "workbook",
        "formulas that were never calculated",
        workbook(["id", "net", "gross"], [1, 100, "=B2*1.19"], [2, 200, 238]),
        {"id": [2], "net": [200], "gross": [238]},
        quarantined=(1,),
    ),
    Case(
        "workbook",
        "formulas that were never calculated, typed",
        workbook(["id", "gross"], [1, "=A2*1.19"], [2, 238]),
        {"id": [2], "gross": [238.0]},
        contract=_TYPED,
        quarantined=(1,),
    ),
    Case(
        "workbook",
        "formulas without a value element, shared ones, and 0 in a workbook that is still to be calculated",
        raw_workbook(
            _HEADER + b'<row r="2"><c r="A2"><v>1</v></c><c r="B2"><f>A2*2</f></c></row>'
            b'<row r="3"><c r="A3"><v>2</v></c><c r="B3"><f t="shared" si="0"/><v></v></c></row>'
            b'<row r="4"><c r="A4"><v>3</v></c><c r="B4"><f>A4*2</f><v>0</v></c></row>'
            b'<row r="5"><c r="A5"><v>4</v></c><c r="B5"><f>A5*2</f><v>8</v></c></row>',
            calculation=b'<calcPr fullCalcOnLoad="1"/>',
        ),
        {"id": [4], "gross": [8]},
        quarantined=(1, 2, 3),
    ),
    Case(
        "workbook",
        "formulas that give 0 and an empty string",
        raw_workbook(
            _HEADER + b'<row r="2"><c r="A2"><v>1</v></c><c r="B2"><f>A2*0</f><v>0</v></c></row>'
            b'<row r="3"><c r="A3"><v>2</v></c><c r="B3" t="str"><f>IF(A3,"")</f><v></v></c></row>',
        ),
        {"id": [1, 2], "gross": [0, None]},
    ),
    *(
        Case(
            "workbook",
            f"a {state} sheet {place}",
            workbook(["id"], [7], change=_with_sheet(state, first=place == "first")),
            {"id": [7]},
        )
        for state in ("hidden", "veryHidden")
        for place in ("first", "last")
    ),
    Case("workbook", "a chart is the first sheet", workbook(["id"], [7], change=_with_chart_first), {"id": [7]}),
    Case(
        "workbook",
        "the first sheet is a cover",
        workbook(["id"], [7], change=_with_cover),
        None,
        codes=("sheet_not_chosen",),
        mentions=("`sheet: Data`",),
    ),
    Case(
        "workbook",
        "a declared sheet after a cover",
        workbook(["id"], [7], change=_with_cover),
        {"id": [7]},
        contract={"format": {"sheet": "Data"}},
    ),
    *(
        Case(
            "workbook",
            f"Excel's day 60 and a date before its first, {name}",
            workbook(*_DATES, change=_date_cells("B")),
            {"id": [1, 3], "d": [dt.date(1900, 2, 28), dt.date(1900, 3, 1)]},
            contract=contract,
            quarantined=(2, 4, 5),
        )
        for name, contract in (
            ("undeclared", None),
            ("declared", {"columns": {"id": {"type": "integer"}, "d": {"type": "date"}}}),
        )
    ),
    Case(
        "workbook",
        "negative numbers next to times",
        workbook(["a", "t"], [-5, dt.time(8, 30)], [60, dt.time(9)]),
        {"a": [-5, 60], "t": [dt.time(8, 30), dt.time(9)]},
    ),
    Case(
        "workbook",
        "numbers that a format shows with leading zeros",
        workbook(["id", "zip"], [1, 1234], [2, 98765], change=_padded_cells),
        {"id": [1, 2], "zip": ["1234", "98765"]},
        contract={"columns": {"id": {"type": "integer"}, "zip": {"type": "string"}}},
    ),
    Case(
        "workbook",
        "merged cells",
        workbook(["region", "n"], ["North", 1], [None, 2], ["South", 3], change=_merged_cells),
        {"region": ["North", None, "South"], "n": [1, 2, 3]},
    ),
    Case(
        "workbook",
        "durations of more than a day",
        workbook(
            ["id", "d"], [1, dt.timedelta(hours=30, minutes=5)], [2, dt.timedelta(minutes=90)], change=_duration_cells
        ),
        {"id": [1, 2], "d": ["30:05:00", "1:30:00"]},
    ),
)
