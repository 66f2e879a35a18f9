"""Values from formats with types are published exactly, with every digit, no matter how the file is partitioned."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.refinery.refine import refine_file
from tests.unit.flows.refinery.tables import a_contract

HALF_PAST = dt.time(8, 30, 15)
DAY, NOON = dt.date(2024, 1, 31), dt.datetime(2024, 3, 1, 12)  # noqa: DTZ001 workbooks have no time zones


def published(folder: Path, content: bytes, rows_per_partition: int = 1000, **contract: Any) -> pa.Table:
    """Return the published rows of a file, none of which may be quarantined."""
    (folder / "upload").write_bytes(content)
    used = a_contract(**contract)
    refined = refine_file(folder / "upload", used, folder, rows_per_partition=rows_per_partition)
    assert (refined.quarantined, refined.rejected) == ({}, ())
    (output,) = refined.outputs
    return pq.read_table(output.path)


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def xlsx(*rows: list[Any]) -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(buffer)
    return buffer.getvalue()


def test_undeclared_dates_and_times_keep_their_types_and_durations_become_strings(tmp_path: Path) -> None:
    content = parquet(
        day=pa.array([DAY, None]), time=pa.array([dt.time(8, 30), None]), took=pa.array([dt.timedelta(hours=1), None])
    )
    table = published(tmp_path, content)
    assert table.to_pydict() == {"day": [DAY, None], "time": [dt.time(8, 30), None], "took": ["1:00:00", None]}
    assert [str(field.type) for field in table.schema] == ["date32[day]", "time64[us]", "string"]


@pytest.mark.parametrize("rows_per_partition", [1, 1000])
def test_dates_and_timestamps_in_one_column_become_timestamps(tmp_path: Path, rows_per_partition: int) -> None:
    table = published(tmp_path, xlsx(["when"], [DAY], [NOON]), rows_per_partition)
    assert [moment.replace(tzinfo=None).isoformat() for moment in table["when"].to_pylist()] == [
        "2024-01-31T00:00:00",
        "2024-03-01T12:00:00",
    ]


@pytest.mark.parametrize("rows_per_partition", [1, 1000])
def test_timestamps_among_strings_become_the_same_strings_with_any_partition_size(
    tmp_path: Path, rows_per_partition: int
) -> None:
    table = published(tmp_path, xlsx(["when"], [NOON], ["soon"], [DAY]), rows_per_partition)
    assert table["when"].to_pylist() == ["2024-03-01 12:00:00", "soon", "2024-01-31"]


@pytest.mark.parametrize(
    "content",
    [
        xlsx(["day", "n"], [DAY, 1], ["01.02.2024", 2], [None, 3]),
        parquet(day=pa.array([DAY, dt.date(2024, 2, 1), None])),
    ],
    ids=["cells that are dates among cells that are strings", "dates"],
)
def test_a_value_that_is_already_a_date_needs_no_format(tmp_path: Path, content: bytes) -> None:
    table = published(tmp_path, content, columns={"day": {"type": "date", "format": "%d.%m.%Y"}})
    assert table["day"].to_pylist() == [DAY, dt.date(2024, 2, 1), None]


@pytest.mark.parametrize(
    "content",
    [
        xlsx(["at", "n"], [HALF_PAST, 1], ["16.45 Uhr", 2], [None, 3]),
        parquet(at=pa.array([HALF_PAST, dt.time(16, 45), None])),
    ],
    ids=["cells that are times among cells that are strings", "times"],
)
def test_a_value_that_is_already_a_time_needs_no_format(tmp_path: Path, content: bytes) -> None:
    table = published(tmp_path, content, columns={"at": {"type": "time", "format": "%H.%M Uhr"}})
    assert table["at"].to_pylist() == [HALF_PAST, dt.time(16, 45), None]


@pytest.mark.parametrize("rows_per_partition", [1, 1000])
def test_mixed_values_become_the_same_strings_with_any_partition_size(tmp_path: Path, rows_per_partition: int) -> None:
    content = b'{"a":1}\n{"a":"x"}\n{"a":1.0}\n{"a":true}\n{"a":1e16}\n{"a":0.1}\n'
    table = published(tmp_path, content, rows_per_partition)
    assert table["a"].to_pylist() == ["1", "x", "1", "true", "1e+16", "0.1"]


def test_decimals_become_strings_without_an_exponent(tmp_path: Path) -> None:
    amounts = pa.array([Decimal(0), Decimal("0.00000001"), None], pa.decimal128(20, 8))
    content = parquet(a=amounts, b=pa.ListArray.from_arrays([0, 1, 2, 2], amounts))
    assert published(tmp_path, content, columns={"a": "string", "b": "json"}).to_pydict() == {
        "a": ["0.00000000", "0.00000001", None],
        "b": ['["0.00000000"]', '["0.00000001"]', "[]"],
    }


def test_times_in_expectations_may_be_written_as_in_files(tmp_path: Path) -> None:
    allowed = {"column": "opens", "value_set": ["8:00", "18:00"]}
    forbidden = {"column": "opens", "value_set": ["00:00"], "severity": "critical"}
    expectations = [
        {"expect_column_values_to_be_in_set": allowed},
        {"expect_column_values_to_not_be_in_set": forbidden},
    ]
    (tmp_path / "upload").write_bytes(b"opens\n8:00\n18:00\n00:00\n")
    contract = a_contract(columns={"opens": "time"}, expectations=expectations)
    checks = refine_file(tmp_path / "upload", contract, tmp_path).checks
    assert [check.rows_failing for check in checks] == [1, 1]


def test_numbers_in_a_string_column_keep_their_digits(tmp_path: Path) -> None:
    content = b'{"a": 1.10, "b": 1.10}\n{"a": 12345678901234567890.12, "b": 2}\n{"a": NaN, "b": 3}\n'
    table = published(tmp_path, content, columns={"a": "string"})
    assert table.to_pydict() == {"a": ["1.10", "12345678901234567890.12", None], "b": [1.1, 2.0, 3.0]}


@pytest.mark.parametrize("columns", [{}, {"a": "json"}])
def test_numbers_in_nested_values_keep_their_digits(tmp_path: Path, columns: dict[str, str]) -> None:
    nested = ['{"price": 1.10, "text": "2.50", "more": [1e400, 12345678901234567890.12]}', "[0.10, 7]", '["1.10"]']
    content = "".join(f'{{"a": {value}, "b": 1.5}}\n' for value in nested).encode()
    assert published(tmp_path, content, columns=columns).to_pydict() == {"a": nested, "b": [1.5] * 3}


@pytest.mark.parametrize("form", [{}, {"thousands": ","}, {"thousands": ",", "delimiter": ","}])
def test_a_thousands_separator_may_be_the_delimiter_if_such_numbers_are_quoted(
    tmp_path: Path, form: dict[str, str]
) -> None:
    content = b'amount,n\n"1,234.50",1\n"2,000.00",2\n'
    table = published(tmp_path, content, columns={"amount": "number", "n": "integer"}, format=form)
    assert table.to_pydict() == {"amount": [1234.5, 2000.0], "n": [1, 2]}


@pytest.mark.parametrize("rows_per_partition", [1, 9])
def test_dates_next_to_timestamps_become_timestamps_but_stay_dates_in_a_string_column(
    tmp_path: Path, rows_per_partition: int
) -> None:
    content = xlsx(["t", "text"], [DAY, DAY], [NOON, NOON])
    table = published(tmp_path, content, rows_per_partition, columns={"text": "string"})
    assert table["text"].to_pylist() == ["2024-01-31", "2024-03-01 12:00:00"]
    assert table["t"].to_pylist() == [
        dt.datetime(2024, 1, 31, tzinfo=dt.UTC),
        dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC),
    ]
