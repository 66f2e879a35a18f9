"""An exported file has every row, with the values and types that its format supports. It is complete or absent."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest

from flows.published.export import ExportUnknown, export_rows
from flows.published.rows import Selection, published_rows
from flows.refinery.repair.text_workbook import WorkbookTooSmall
from tests.unit.flows.conftest import Account
from tests.unit.flows.published.conftest import Declare

COLUMNS = "columns: {item: string, pieces: integer, price: number, day: date, at: timestamp, sold: boolean}\n"
HEADER = "item,pieces,price,day,at,sold\n"
BOLT = "bolt,9007199254740993,0.1,2026-01-31,2026-01-31T06:07:08Z,true\n"


def export(account: Account, destination: Path, **options: Any) -> int:
    with published_rows(account.parts.store, "stock", Selection(**options)) as rows:
        return export_rows(rows, destination)


def publish(account: Account, declare: Declare, body: str, columns: str = COLUMNS) -> None:
    declare("stock", columns)
    account.process(account.upload("incoming/stock/a.csv", body.encode()))


def test_parquet_keeps_values_and_types(account: Account, declare: Declare, tmp_path: Path) -> None:
    publish(account, declare, HEADER + BOLT)
    assert export(account, tmp_path / "stock.parquet") == 1
    (row,) = pq.read_table(tmp_path / "stock.parquet").to_pylist()
    assert (row["pieces"], row["price"], row["day"], row["sold"]) == (2**53 + 1, 0.1, dt.date(2026, 1, 31), True)


def test_csv_keeps_digits_quotes_and_line_ends(account: Account, declare: Declare, tmp_path: Path) -> None:
    publish(account, declare, 'item,pieces\n007,9007199254740993\n"a,""b""\nc",\n', "columns: {item: string}\n")
    export(account, tmp_path / "stock.csv")
    read = pd.read_csv(tmp_path / "stock.csv", dtype=str)
    assert read["item"].tolist() == ["007", 'a,"b"\nc']
    assert read["pieces"].iloc[0] == "9007199254740993"


@pytest.mark.parametrize("text", ["=1+1", "+41 44 123", "-a", "@sum(1)", "\tx"])
def test_a_string_that_looks_like_a_formula_is_escaped_in_csv_and_unchanged_in_a_workbook(
    account: Account, declare: Declare, tmp_path: Path, text: str
) -> None:
    publish(account, declare, f'item,pieces\n"{text}",1\n', "columns: {item: string}\n")
    export(account, tmp_path / "stock.csv")
    export(account, tmp_path / "stock.xlsx")
    assert pd.read_csv(tmp_path / "stock.csv")["item"].tolist() == [f'="{text}"']
    cell = openpyxl.load_workbook(tmp_path / "stock.xlsx").active["A2"]
    assert (cell.value, cell.data_type) == (text, "s")


def test_a_workbook_has_typed_cells_and_strings_for_values_that_no_cell_can_store(
    account: Account, declare: Declare, tmp_path: Path
) -> None:
    publish(account, declare, HEADER + BOLT + "nut,,,1850-01-01,,\n")
    export(account, tmp_path / "stock.xlsx")
    header, bolt, nut = openpyxl.load_workbook(tmp_path / "stock.xlsx").active.values
    assert header == tuple(HEADER.strip().split(","))
    moments = (dt.datetime(2026, 1, 31), dt.datetime(2026, 1, 31, 6, 7, 8))  # noqa: DTZ001 (cells have no zone)
    assert bolt == ("bolt", "9007199254740993", 0.1, *moments, True)
    assert nut == ("nut", None, None, "1850-01-01", None, None)


def test_more_rows_than_a_workbook_can_have_leave_no_file(
    account: Account, declare: Declare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(account, declare, HEADER + BOLT + BOLT)
    monkeypatch.setattr("flows.published.export.MAX_ROWS", 2)
    with pytest.raises(WorkbookTooSmall):
        export(account, tmp_path / "stock.xlsx")
    assert not list(tmp_path.glob("*stock*"))


def test_the_quarantine_is_exported_with_its_rules(account: Account, declare: Declare, tmp_path: Path) -> None:
    publish(account, declare, HEADER + BOLT + BOLT.replace("0.1", "cheap"))
    export(account, tmp_path / "bad.csv", quarantine=True)
    (row,) = pd.read_csv(tmp_path / "bad.csv").to_dict("records")
    assert (row["_rules"], row["price"]) == ("not_a_number(price)", "cheap")


def test_an_unknown_file_extension_is_rejected(account: Account, declare: Declare, tmp_path: Path) -> None:
    publish(account, declare, HEADER + BOLT)
    with pytest.raises(ExportUnknown):
        export(account, tmp_path / "stock.txt")


@pytest.mark.parametrize("ending", ["csv", "parquet", "xlsx"])
def test_a_dataset_without_rows_gives_a_file_without_rows(
    account: Account, declare: Declare, tmp_path: Path, ending: str
) -> None:
    publish(account, declare, HEADER)
    assert export(account, tmp_path / f"stock.{ending}") == 0
    assert (tmp_path / f"stock.{ending}").stat().st_size > 0
