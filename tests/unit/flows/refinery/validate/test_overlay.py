"""In every format, a file with corrected rows gives the same result as a file that was correct from the start."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.refinery.contract.model import Contract
from flows.refinery.read.header import DROP
from flows.refinery.read.rejections import MarksContradict
from flows.refinery.refine import BY_REPAIR, Refined, refine_file
from flows.refinery.repair.changes import changes_in, corrections_of
from flows.refinery.repair.corrections import Corrections, CorrectionsUnusable
from flows.refinery.repair.quarantined_rows import export_quarantine, read_quarantine
from tests.unit.flows.refinery.tables import a_contract

Row = dict[str, Any]
Writer = Callable[[list[Row]], bytes]

DAY = dt.datetime(2024, 5, 1)  # noqa: DTZ001 files contain timestamps without a zone

# The columns from `size` on are not in the contract, so that their types are inferred from the file.
CLEAN: list[Row] = [
    {
        "id": f"A{number:03d}",
        "price": number + 0.5,
        "day": DAY + dt.timedelta(days=number),
        "size": number * 3,
        "share": number / 8,
        "shop": ["Köln", "Århus", "x;y"][number % 3],
        "code": f"{number:05d}",
    }
    for number in range(1, 13)
]
CONTRACT: dict[str, Any] = {
    "columns": {
        "id": {"type": "string", "nullable": False},
        "price": {"type": "number", "nullable": False},
        "day": "timestamp",
    },
    "expectations": [
        {"expect_column_values_to_be_unique": {"column": "id"}},
        {"expect_column_values_to_be_between": {"column": "price", "min_value": 0, "max_value": 100}},
        {"expect_column_values_to_be_between": {"column": "size", "min_value": 0, "max_value": 1000}},
        {"expect_column_values_to_match_regex": {"column": "shop", "regex": "^[^!]+$"}},
    ],
    "preprocess": [{"standardize": {"column": "price"}}],
}


def dirty() -> list[Row]:
    """Return the clean rows with errors in declared and in undeclared columns."""
    rows = [dict(row) for row in CLEAN]
    rows[1]["price"] = 9999.25
    rows[2]["price"] = None
    rows[4]["size"] = -7
    rows[6]["shop"] = "!!"
    rows[8]["id"] = rows[7]["id"]
    return rows


def csv_of(rows: list[Row], delimiter: str = ",", decimal: str = ".") -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([as_text(value, decimal) for value in row.values()])
    return buffer.getvalue().encode()


def as_text(value: Any, decimal: str = ".") -> str:
    """Return a value as people write it, with this decimal separator."""
    if isinstance(value, float):
        return str(value).replace(".", decimal)
    return "" if value is None else str(value)


def json_lines_of(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row, default=str, ensure_ascii=False).encode() + b"\n" for row in rows)


def xlsx_of(rows: list[Row]) -> bytes:
    book = openpyxl.Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def parquet_of(rows: list[Row]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer)
    return buffer.getvalue()


WRITERS: dict[str, Writer] = {
    "CSV": csv_of,
    "CSV with semicolons, decimal commas and latin letters": lambda rows: (
        csv_of(rows, ";", ",").decode().encode("cp1252")
    ),
    "CSV, gzip": lambda rows: gzip.compress(csv_of(rows)),
    "JSON": lambda rows: json.dumps(rows, default=str).encode(),
    "JSON Lines, zstd": lambda rows: bytes(pa.Codec("zstd").compress(json_lines_of(rows), asbytes=True)),
    "Parquet": parquet_of,
    "XLSX": xlsx_of,
}


def contract_of(form: str) -> Contract:
    return a_contract(**CONTRACT, format={"encoding": "cp1252"}) if "latin" in form else a_contract(**CONTRACT)


@pytest.fixture(params=[3, 1000], ids=["small partitions", "one partition"])
def rows_per_partition(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


def refined(
    folder: Path, content: bytes, contract: Contract, corrections: Corrections | None = None, size: int = 1000
) -> Refined:
    folder.mkdir(exist_ok=True)
    (folder / "upload").write_bytes(content)
    return refine_file(folder / "upload", contract, folder, corrections=corrections, rows_per_partition=size)


def published(found: Refined) -> pd.DataFrame:
    (output,) = found.outputs
    return pd.read_parquet(output.path)


def corrected_by_hand(found: Refined, folder: Path, change: Callable[[Row], None]) -> Corrections:
    """Export the quarantined rows as CSV, apply `change` to each, and return the resulting corrections."""
    assert found.quarantine
    path = folder / "corrected.csv"
    export_quarantine(found.quarantine[0].path, path)
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
    for row in rows:
        change(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    quarantined = read_quarantine(found.quarantine[0].path)
    return corrections_of(changes_in(path, quarantined), quarantined)


@pytest.mark.parametrize("form", WRITERS)
def test_a_corrected_file_gives_the_same_result_as_a_clean_one(
    form: str, rows_per_partition: int, tmp_path: Path
) -> None:
    write, contract = WRITERS[form], contract_of(form)
    decimal = "," if "commas" in form else "."

    def correct(row: Row) -> None:
        right = CLEAN[int(row["_row_number"]) - 1]
        wrong = dirty()[int(row["_row_number"]) - 1]
        row.update({name: as_text(value, decimal) for name, value in right.items() if value != wrong[name]})

    found = refined(tmp_path / "dirty", write(dirty()), contract, size=rows_per_partition)
    assert sum(found.quarantined.values()) == 6, found.rejected
    corrections = corrected_by_hand(found, tmp_path, correct)
    repaired = refined(tmp_path / "dirty", write(dirty()), contract, corrections, rows_per_partition)
    clean = refined(tmp_path / "clean", write(CLEAN), contract)
    assert (repaired.rows_in, repaired.rows_published, repaired.quarantined) == (12, 12, {})
    ours, theirs = map(published, (repaired, clean))
    pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.parametrize("form", WRITERS)
def test_a_file_with_dropped_rows_is_the_file_without_them(form: str, rows_per_partition: int, tmp_path: Path) -> None:
    """Row 9 has the same key as row 8, so once row 9 is dropped, row 8 is good."""
    write, contract, bad = WRITERS[form], contract_of(form), (2, 3, 5, 7, 9)

    def drop(row: Row) -> None:
        row["_sluice_drop"] = "drop" if int(row["_row_number"]) in bad else ""

    found = refined(tmp_path / "dirty", write(dirty()), contract, size=rows_per_partition)
    corrections = corrected_by_hand(found, tmp_path, drop)
    repaired = refined(tmp_path / "dirty", write(dirty()), contract, corrections, rows_per_partition)
    clean = refined(tmp_path / "clean", write([row for n, row in enumerate(CLEAN, 1) if n not in bad]), contract)
    assert (repaired.rows_in, repaired.rows_published, repaired.quarantined) == (12, 7, {})
    assert repaired.dropped == {BY_REPAIR: 5}
    pd.testing.assert_frame_equal(published(repaired), published(clean))


def test_dropped_rows_do_not_determine_how_numbers_are_read(tmp_path: Path) -> None:
    content = b"id;n\na;1,5\nb;2,5\n" + b"".join(b"c%d;%d,5\n" % (number, number) for number in range(4))
    contract = a_contract(columns={"id": "string", "n": "number"})
    dropped = Corrections((DROP,), {1: {DROP: "drop"}, 2: {DROP: "drop"}})
    found = refined(tmp_path, content, contract, dropped, 2)
    assert (found.rows_in, found.dropped, found.quarantined) == (6, {BY_REPAIR: 2}, {})
    assert list(published(found)["n"]) == [0.5, 1.5, 2.5, 3.5]


def test_a_dropped_string_does_not_make_its_column_a_string_column(tmp_path: Path) -> None:
    content = b'{"id": "a", "n": 1}\n{"id": "b", "n": "x"}\n{"id": "c", "n": 3}\n'
    found = refined(tmp_path, content, a_contract(), Corrections((DROP,), {2: {DROP: "drop"}}))
    assert published(found).to_dict("list") == {"id": ["a", "c"], "n": [1, 3]}


@pytest.mark.parametrize("content", [b"id,n\na,1\nb,2,3\nc,3\n", b'{"id":"a","n":1}\n{"id":"b",\n{"id":"c","n":3}\n'])
def test_a_row_that_could_not_be_decoded_can_be_dropped_and_restored(content: bytes, tmp_path: Path) -> None:
    given: Row = {"id": None, "n": None}
    dropped = Corrections(("id", "n", DROP), {2: {**given, DROP: "drop"}})
    found = refined(tmp_path, content, a_contract(), dropped)
    assert (found.rows_published, found.dropped, found.quarantined) == (2, {BY_REPAIR: 1}, {})
    kept = Corrections(("id", "n", DROP), {2: {**given, DROP: None}}).over(dropped)
    found = refined(tmp_path, content, a_contract(), kept)
    assert (found.rows_published, found.dropped, sum(found.quarantined.values())) == (2, {}, 1)


def test_a_file_of_which_all_rows_are_dropped_is_a_file_without_rows(tmp_path: Path) -> None:
    dropped = Corrections((DROP,), {number: {DROP: "drop"} for number in (1, 2)})
    for content, empty in ((b"a\n1\n2\n", b"a\n"), (b'[{"a": 1}, {"a": 2}]', b"[]")):
        found, clean = refined(tmp_path, content, a_contract(), dropped), refined(tmp_path / "c", empty, a_contract())
        assert [reason.code for reason in found.rejected] == [reason.code for reason in clean.rejected]
        assert (found.rows_in, found.rows_published, sum(found.dropped.values())) == (2, 0, 2)


def test_a_rejected_file_also_counts_the_rows_that_repairs_dropped(tmp_path: Path) -> None:
    rule = {"expect_table_row_count_to_equal": {"value": 9, "severity": "critical"}}
    for fields in ({"expectations": [rule]}, {"columns": {"lacking": "string"}}):
        found = refined(tmp_path, b"a\n1\n2\n3\n", a_contract(**fields), Corrections((DROP,), {2: {DROP: "drop"}}))
        assert found.rejected
        assert (found.rows_in, found.dropped) == (3, {"file_rejected": 3})


@pytest.mark.parametrize("form", WRITERS)
def test_a_row_that_is_corrected_wrongly_is_quarantined_again_with_the_given_value(form: str, tmp_path: Path) -> None:
    write, contract = WRITERS[form], contract_of(form)
    corrections = Corrections(("price", "day", "size"), {2: {"price": "cheap"}, 3: {"day": "someday"}})
    found = refined(tmp_path, write(CLEAN), contract, corrections, 5)
    assert found.quarantined == {"not_a_number(price)": 1, "not_a_timestamp(day)": 1}
    assert found.quarantine
    rows = pd.read_parquet(found.quarantine[0].path)
    assert [list(values) for values in rows["_values"]] == [["cheap"], ["someday"]]
    assert list(rows["_row_number"]) == [2, 3]


@pytest.mark.parametrize(
    ("content", "corrections"),
    [
        (b"id,n\na,1\nb,2,3\nc,3\nd\n", {2: {"id": "b", "n": "2"}}),
        (b'{"id":"a","n":1}\n{"id":"b",\n{"id":"c","n":3}\n[]\n', {2: {"id": "b", "n": "2"}}),
    ],
    ids=["CSV", "JSON Lines"],
)
def test_undecodable_rows_can_be_filled_in_one_by_one(
    content: bytes, corrections: dict[int, dict[str, str | None]], rows_per_partition: int, tmp_path: Path
) -> None:
    contract = a_contract()
    corrected = Corrections(("id", "n"), corrections)
    found = refined(tmp_path, content, contract, corrected, rows_per_partition)
    assert (found.rows_in, found.rows_published, sum(found.quarantined.values())) == (4, 3, 1)
    rows = published(found)
    assert rows.to_dict("list") == {"id": ["a", "b", "c"], "n": [1, 2, 3]}
    assert rows["n"].dtype == "int64"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([dt.date(2024, 1, 31), None, dt.date(2024, 2, 1)], "2024-02-01"),
        ([dt.time(8), None, dt.time(9, 30)], "09:30:00"),
    ],
)
def test_a_corrected_date_or_time_does_not_make_its_undeclared_column_a_string_column(
    tmp_path: Path, values: list[Any], text: str
) -> None:
    pq.write_table(pa.table({"when": values}), tmp_path / "upload")
    contract = a_contract(unknown_columns="evolve")
    corrections = Corrections(("when",), {2: {"when": text}})
    (output,) = refine_file(tmp_path / "upload", contract, tmp_path, corrections=corrections).outputs
    assert pq.read_table(output.path)["when"].to_pylist() == [values[0], values[2], values[2]]


def test_unedited_values_are_published_unchanged(tmp_path: Path) -> None:
    content = b'id;price;note\n007;1,50;"a;b"\n008;x;NA\n1e3;2,75;\n'
    contract = a_contract(columns={"price": "number"}, output={"format": "csv"})
    found = refined(tmp_path, content, contract, Corrections(("price",), {2: {"price": "9,25"}}))
    (output,) = found.outputs
    written = list(csv.reader(io.StringIO(output.path.read_text())))
    assert written[1:] == [["007", "1.5", "a;b"], ["008", "9.25", "NA"], ["1e3", "2.75", ""]]


def test_a_value_with_another_decimal_separator_rejects_the_file_unless_the_contract_declares_one(
    tmp_path: Path,
) -> None:
    lines = [b"id;n", b"a;2.5", *(b"x;%d,5" % number for number in range(20))]
    content = b"\n".join([*lines, b""])
    with pytest.raises(MarksContradict):
        refined(tmp_path, content, a_contract(columns={"n": "number"}))
    contract = a_contract(columns={"n": "number"}, format={"decimal": ","})
    found = refined(tmp_path, content, contract, Corrections(("n",), {1: {"n": "2,5"}}), 8)
    assert found.quarantined == {}
    assert list(published(found)["n"]) == [2.5, *(number + 0.5 for number in range(20))]


def test_a_repair_can_add_a_column_that_the_file_lacked(tmp_path: Path) -> None:
    contract = a_contract(columns={"id": "string", "n": "integer"}, missing_columns="quarantine")
    found = refined(tmp_path, b"id\na\nb\n", contract, Corrections(("n",), {1: {"n": "1"}, 2: {"n": "2"}}))
    assert found.quarantined == {}
    assert list(published(found)["n"]) == [1, 2]


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b'{"a": 1, "b": 2}\n'], ids=["CSV", "JSON Lines"])
@pytest.mark.parametrize(
    ("corrections", "why"),
    [
        (Corrections(("c",), {1: {"c": "1"}}), "neither the file nor its contract has a column 'c'"),
        (Corrections(("a",), {9: {"a": "1"}}), "no row 9"),
        (Corrections((DROP,), {9: {DROP: "drop"}}), "no row 9"),
    ],
)
def test_corrections_that_do_not_fit_are_rejected(
    content: bytes, corrections: Corrections, why: str, tmp_path: Path
) -> None:
    with pytest.raises(CorrectionsUnusable, match=why):
        refined(tmp_path, content, a_contract(), corrections)


def test_an_unedited_empty_string_or_missing_value_stays_the_same(tmp_path: Path) -> None:
    """In CSV, missing values and empty strings look the same. An unedited cell must not become the other one."""
    contract = a_contract(columns={"a": "string", "n": "integer"}, format={"missing_values": ["NA"]})
    content = b"a,n\n,x\nNA,2\n"
    found = refined(tmp_path, content, contract)
    corrections = corrected_by_hand(found, tmp_path, lambda row: row.update(n="1"))
    rows = published(refined(tmp_path, content, contract, corrections))
    assert [value if isinstance(value, str) else None for value in rows["a"]] == ["", None]
