"""When exported rows are corrected in a spreadsheet program and read back, only the edited cells change."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from flows.refinery.contract.model import Contract
from flows.refinery.read.header import DROP
from flows.refinery.refine import Refined, refine_file
from flows.refinery.repair.changes import (
    Change,
    OtherCellsChanged,
    changes_in,
    corrections_of,
    require_only_bad_cells,
)
from flows.refinery.repair.corrections import Corrections, CorrectionsUnusable, read_corrections
from flows.refinery.repair.quarantined_rows import QuarantinedRow, export_quarantine, read_quarantine
from flows.refinery.repair.spreadsheet_texts import protected, unprotected
from flows.refinery.repair.text_workbook import WorkbookTooSmall, write_text_workbook
from tests.unit.flows.refinery.repair.spreadsheets import Cell, opened, saved_as_csv, saved_as_workbook
from tests.unit.flows.refinery.tables import a_contract

# Strings that spreadsheet programs change or execute. Each is the value of the column `note` in one row.
NOTES = [
    *("007", "1.50", "12345678901234567890", "2024-02-05", "1/2", "MARCH1", "1e5", "TRUE", "+41 79 123", "-5", "-5.50"),
    *("=1+1", '=HYPERLINK("http://x","y")', "@SUM(A1)", "\tx", "'x", "'=x", '="007"', "=" + "x" * 300, "7:05", "50%"),
    *("Jürgen Łódź", 'say "hi"', "two\nlines", " padded ", "a;b,c", "_x0041_", "😀"),
]
CONTRACT = a_contract(columns={"id": "integer", "note": "string", "amount": "number"}, output={"format": "csv"})


def upload(amount: str, notes: list[str] = NOTES) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["id", "note", "amount"])
    writer.writerow(["0", "good", "1"])
    writer.writerows([str(number), note, amount] for number, note in enumerate(notes, start=1))
    return text.getvalue().encode()


def refined(
    folder: Path, content: bytes, corrections: Corrections | None = None, contract: Contract = CONTRACT
) -> Refined:
    folder.mkdir(exist_ok=True)
    (folder / "upload").write_bytes(content)
    return refine_file(folder / "upload", contract, folder, corrections=corrections)


def published(found: Refined) -> list[list[str]]:
    (output,) = found.outputs
    return list(csv.reader(io.StringIO(output.path.read_text("utf-8"), newline="")))


def quarantine_of(folder: Path, notes: list[str] = NOTES) -> Path:
    (quarantine,) = refined(folder / "dirty", upload("cheap", notes)).quarantine
    return quarantine.path


def corrected(rows: list[list[Cell]]) -> list[list[Cell]]:
    amount = rows[0].index("amount")
    return [rows[0], *([*row[:amount], 2.5, *row[amount + 1 :]] for row in rows[1:])]


SAVED: dict[str, tuple[str, list[str], Callable[[list[list[Cell]], Path], None]]] = {
    "a workbook": (".xlsx", NOTES, saved_as_workbook),
    "a workbook, from a CSV": (".csv", NOTES, saved_as_workbook),
    "CSV UTF-8": (".csv", NOTES, partial(saved_as_csv, encoding="utf-8-sig", delimiter=";")),
    "CSV UTF-8 from a workbook": (".xlsx", NOTES, partial(saved_as_csv, encoding="utf-8-sig", delimiter=",")),
    "Unicode text": (".csv", NOTES, partial(saved_as_csv, encoding="utf-16", delimiter="\t")),
    "CSV, western": (".csv", ["Jürgen", "Zoé", "007"], partial(saved_as_csv, encoding="cp1252", delimiter=";")),
    "CSV, polish": (".csv", ["Łódź", "007"], partial(saved_as_csv, encoding="cp1250", delimiter=";")),
}


@pytest.mark.parametrize("saved", SAVED)
def test_a_saved_spreadsheet_changes_only_the_edited_cells(saved: str, tmp_path: Path) -> None:
    ending, notes, save = SAVED[saved]
    quarantine = quarantine_of(tmp_path, notes)
    exported, returned = tmp_path / f"rows{ending}", tmp_path / "returned"
    assert export_quarantine(quarantine, exported) == len(notes)
    save(corrected(opened(exported)), returned)
    rows = read_quarantine(quarantine)
    changes = changes_in(returned, rows)
    assert changes == tuple(Change(number, "amount", "cheap", "2.5", True) for number in rows)
    repaired = refined(tmp_path / "again", upload("cheap", notes), corrections_of(changes, rows))
    clean = refined(tmp_path / "clean", upload("2.5", notes))
    assert published(repaired) == published(clean)


@pytest.mark.parametrize("saved", SAVED)
def test_a_row_that_is_marked_in_a_spreadsheet_is_dropped(saved: str, tmp_path: Path) -> None:
    ending, notes, save = SAVED[saved]
    quarantine = quarantine_of(tmp_path, notes)
    exported, returned = tmp_path / f"rows{ending}", tmp_path / "returned"
    export_quarantine(quarantine, exported)
    header, first, *others = opened(exported)
    first[header.index(DROP)] = "Drop "
    save([header, first, *others], returned)
    rows = read_quarantine(quarantine)
    number = min(rows)
    changes = changes_in(returned, rows)
    assert changes == (Change(number, DROP, None, "drop", was_bad=True),)
    assert corrections_of(changes, rows).dropped == {number}


@pytest.mark.parametrize(("mark", "after"), [("drop", "drop"), ("YES", "drop"), ('="yes"', "drop"), ("no", None)])
def test_a_value_in_the_drop_column_drops_the_row_or_keeps_it(tmp_path: Path, mark: str, after: str | None) -> None:
    (tmp_path / "x.csv").write_text(f"_row_number;_sluice_drop;a\r\n4;{mark};x\r\n5;;ü\r\n")
    assert changes_in(tmp_path / "x.csv", EXPORTED) == ((Change(4, DROP, None, after, True),) if after else ())


def test_an_unknown_value_in_the_drop_column_is_rejected_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("_row_number;_sluice_drop;a\r\n4;cheap;x\r\n")
    with pytest.raises(CorrectionsUnusable, match="row 4: _sluice_drop must be drop or yes") as raised:
        changes_in(tmp_path / "x.csv", EXPORTED)
    assert "cheap" not in str(raised.value)


def test_a_dropped_row_is_restored_only_if_other_changes_are_allowed(tmp_path: Path) -> None:
    dropped = {4: QuarantinedRow({"a": "x", DROP: "drop"})}
    (tmp_path / "x.csv").write_text("_row_number,a\n4,x\n")
    assert changes_in(tmp_path / "x.csv", dropped) == ()
    (tmp_path / "x.csv").write_text("_row_number,_sluice_drop,a\n4,,x\n")
    changes = changes_in(tmp_path / "x.csv", dropped)
    with pytest.raises(OtherCellsChanged):
        require_only_bad_cells(changes)
    earlier = Corrections(("a", DROP), {4: {"a": "x", DROP: "drop"}})
    assert corrections_of(changes, dropped).over(earlier).dropped == frozenset()


@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
def test_an_unedited_export_changes_nothing(ending: str, tmp_path: Path) -> None:
    quarantine, exported = quarantine_of(tmp_path), tmp_path / f"rows{ending}"
    export_quarantine(quarantine, exported)
    assert changes_in(exported, read_quarantine(quarantine)) == ()


def test_a_csv_export_has_a_byte_order_mark_and_no_formulas(tmp_path: Path) -> None:
    exported = tmp_path / "rows.csv"
    export_quarantine(quarantine_of(tmp_path), exported)
    assert exported.read_bytes().startswith(b"\xef\xbb\xbf")
    cells = [cell for row in csv.reader(io.StringIO(exported.read_text("utf-8-sig"), newline="")) for cell in row]
    formulas = [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert all((cell.startswith('="') and cell.endswith('"')) or cell == "-5" for cell in formulas)


@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
def test_a_spreadsheet_shows_the_strings_of_an_export_unchanged(ending: str, tmp_path: Path) -> None:
    exported = tmp_path / f"rows{ending}"
    notes = [note for note in NOTES if not note.startswith("=xxx")]
    export_quarantine(quarantine_of(tmp_path, notes), exported)
    header, *rows = opened(exported)
    assert [str(row[header.index("note")]) for row in rows] == notes


def test_a_change_that_a_spreadsheet_made_to_a_good_cell_is_rejected(tmp_path: Path) -> None:
    rows = {2: QuarantinedRow({"zip": "007", "day": "2024-02-05", "price": "cheap"}, ["not_a_number(price)"])}
    returned = tmp_path / "x.csv"
    returned.write_text("_row_number;zip;day;price\r\n2;7;05.02.2024;9,50\r\n")
    changes = changes_in(returned, rows)
    assert [(change.column, change.was_bad) for change in changes] == [("day", False), ("price", True)]
    assert corrections_of(changes, rows).rows[2]["zip"] == "007"  # not a change, only another way to write the number
    with pytest.raises(OtherCellsChanged, match="row 2, columns 'day'") as raised:
        require_only_bad_cells(changes)
    assert "05.02" not in str(raised.value)


@pytest.mark.parametrize(
    ("rules", "is_decoded", "bad"),
    [
        (["not_a_number(b)"], True, {"b"}),
        (["expect_column_pair_values_to_be_equal(a, b)#2"], True, {"a", "b"}),
        (["missing_value(c)"], True, {"c"}),
        (["missing_value(d, e)"], True, {"d, e"}),
        (["unknown_column"], True, {"a", "b", "c", "d, e"}),
        ([], False, {"a", "b", "c", "d, e"}),
        ([], True, set()),
    ],
)
def test_bad_cells_are_those_that_a_broken_rule_concerns(rules: list[str], is_decoded: bool, bad: set[str]) -> None:
    row = QuarantinedRow({}, rules, is_decoded)
    assert {name for name in ("a", "b", "c", "d, e") if row.is_bad(name)} == bad


# --- reading --------------------------------------------------------------------------------------------------------

EXPORTED = {4: QuarantinedRow({"a": "x"}, ["not_a_number(a)"]), 5: QuarantinedRow({"a": "ü"}, ["not_a_number(a)"])}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "no column _row_number"),
        ("_row_number,a\nfour,1\n", "row 1 has no row number"),
        ("_row_number,a\n4,1\n4,2\n", "row 4 is in it twice"),
        ("_row_number,a\n4,1,5\n", "row 1 has more fields than the header, which has 2"),
        ("_row_number,a\n9,1\n", "row 9 is not in the quarantine"),
    ],
)
def test_corrections_without_valid_row_numbers_and_fields_are_rejected(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(CorrectionsUnusable, match=why):
        changes_in(tmp_path / "x.csv", EXPORTED)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf_row_number;a\r\n4.0;1,5\r\n",
        b"sep=;\r\n_row_number;a\r\n4;1,5\r\n;\r\n",
        '_row_number\ta\n="4"\t="1,5"\n'.encode("utf-16"),
        b"a,_row_number,_rules\n'1;5,4,x\n".replace(b"'1;5", b'"1,5"'),
    ],
)
def test_a_file_that_a_spreadsheet_program_saved_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert changes_in(tmp_path / "x.csv", EXPORTED) == (Change(4, "a", "x", "1,5", True),)


def test_an_encoding_is_detected_by_the_values_that_a_file_shares_with_the_export(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("_row_number;a\r\n4;é\r\n5;ü\r\n".encode("cp1252"))
    assert changes_in(path, EXPORTED) == (Change(4, "a", "x", "é", True),)
    path.write_bytes("_row_number;a\r\n4;é\r\n5;u\r\n".encode("cp1252"))
    with pytest.raises(CorrectionsUnusable, match="does not show its encoding"):
        changes_in(path, EXPORTED)


def test_empty_cells_that_excel_leaves_out_at_the_end_of_a_line_are_missing_values(tmp_path: Path) -> None:
    rows = {4: QuarantinedRow({"a": "x", "b": None}, ["not_a_number(a)"])}
    (tmp_path / "x.csv").write_text("_row_number;a;b\r\n4;1\r\n")
    assert changes_in(tmp_path / "x.csv", rows) == (Change(4, "a", "x", "1", True),)


@pytest.mark.parametrize(("number", "text"), [(2.125, "2.1250"), (2.5, "2.5"), (2125.0, "2125"), (True, "true")])
def test_a_number_in_a_cell_of_a_workbook_has_no_thousands_separator(tmp_path: Path, number: float, text: str) -> None:
    saved_as_workbook([["_row_number", "a"], [4, number]], tmp_path / "x.xlsx")
    assert changes_in(tmp_path / "x.xlsx", EXPORTED) == (Change(4, "a", "x", text, True),)


def test_corrections_are_written_and_read_back_unchanged(tmp_path: Path) -> None:
    corrections = Corrections(("a", "b"), {3: {"a": "x", "b": None}, 1: {"a": " 007 ", "b": '"'}})
    corrections.write(tmp_path / "kept.parquet")
    assert read_corrections(tmp_path / "kept.parquet") == corrections
    assert pq.read_schema(tmp_path / "kept.parquet").names == ["_row_number", "a", "b"], "as 0.3.0 wrote them"
    dropped = Corrections(("a", DROP), {1: {"a": "x", DROP: "drop"}, 2: {"a": "y", DROP: None}})
    dropped.write(tmp_path / "kept.parquet")
    assert read_corrections(tmp_path / "kept.parquet") == dropped
    assert dropped.dropped == {1}


# --- random strings -------------------------------------------------------------------------------------------------

_TEXTS = st.text(st.characters(codec="utf-8"), max_size=300) | st.from_regex("['=+@\"0-9x-]{1,9}", fullmatch=True)


@given(_TEXTS)
def test_protection_is_undone_and_leaves_no_formula(text: str) -> None:
    cell = protected(text)
    assert unprotected(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or cell.startswith('="') or cell.lstrip("-").isdigit()


@pytest.mark.heavy
def test_a_text_workbook_can_store_any_string(tmp_path: Path) -> None:
    @given(st.lists(_TEXTS.filter(bool), min_size=1, max_size=5))
    def check(row: list[str]) -> None:
        write_text_workbook(tmp_path / "x.xlsx", row, [row])
        assert CalamineWorkbook.from_path(tmp_path / "x.xlsx").get_sheet_by_index(0).to_python() == [row, row]

    check()


def test_a_string_that_is_too_long_for_a_cell_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(WorkbookTooSmall):
        write_text_workbook(tmp_path / "x.xlsx", ["a"], [["x" * 40_000]])
