"""What cannot be read is dealt with row by row, or refused with the line and the column where it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from flows.refinery.errors import FileRejected
from flows.refinery.read.rejections import (
    FormatNotAllowed,
    HeaderInvalid,
    JsonBroken,
    TextUndecodable,
    UnclosedQuote,
)
from tests.unit.flows.refinery.tables import a_contract, misfits, read_bytes, whole


def test_nul_bytes_in_a_small_file_cost_their_rows_only(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"a,b\n1,2\n3,\0\n5,6\n")
    assert whole(partitions).to_dict("list") == {"a": [1, 5], "b": [2, 6]}
    assert [(misfit.reason, misfit.row_number, misfit.line) for misfit in misfits(partitions)] == [("nul_byte", 2, 3)]


def test_the_zeros_that_a_crash_leaves_at_a_files_end_are_one_row(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"a,b\n" + b"1,2\n" * 20 + b"\0" * 60)
    assert (len(whole(partitions)), [misfit.line for misfit in misfits(partitions)]) == (20, [22])


def test_nul_bytes_cost_a_line_of_json_lines_and_no_more(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b'{"a": 1}\n{"a":\0}\n{"a": 3}\n')
    assert list(whole(partitions)["a"]) == [1, 3]
    assert [misfit.line for misfit in misfits(partitions)] == [2]


@pytest.mark.parametrize(
    ("content", "error", "where"),
    [
        (b"a,\0\n1,2\n", FormatNotAllowed, "line 1, column 3 has the byte 0x00"),
        (b"aaaaaaaaaa,bbbbbbbb\0bb,ccccccccccc\n1,2,3\n", FormatNotAllowed, "line 1, column 20: a NUL byte"),
        (b"a,b\n1,2\n" + b"\0" * 99, FormatNotAllowed, "line 3, column 1 has the byte 0x00"),
        (bytes(100), FormatNotAllowed, "nothing but NUL bytes .*; upload the file again"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<i8'}\n" + bytes(64), FormatNotAllowed, "line 1, column 7 has the byte"),
        ("a,b\n1,2\n".encode("utf-16-le"), FormatNotAllowed, "write `encoding: utf-16-le`"),
        ("a,b\n1,2\n".encode("utf-16-be"), FormatNotAllowed, "write `encoding: utf-16-be`"),
        (b"\na,,c\n1,2,3\n", HeaderInvalid, "line 2: column 2 has no name"),
        (b"a,b,a\n1,2,3\n", HeaderInvalid, r"line 1: column 1, column 3 have the same name"),
        (b'a,b\n1,2\n3," and\n4,5\n', UnclosedQuote, "line 3, column 3: a quote opens and is never closed"),
        (b'a,b\n5" pipe,"1""2",\n3,"x""y\n"\n4,"5\n', UnclosedQuote, "line 5, column 3: a quote opens"),
        (b'a,"b\n1,2\n', UnclosedQuote, "line 1, column 3: a quote opens in the header"),
        (b'[{"a": 1},\n {"a" 2}]', JsonBroken, "line 2, column 7"),
    ],
)
def test_a_refusal_says_line_and_column(tmp_path: Path, content: bytes, error: type[FileRejected], where: str) -> None:
    with pytest.raises(error, match=where):
        read_bytes(tmp_path, content)


def test_text_that_is_not_in_the_given_encoding_is_refused_where_it_ceases_to_be(tmp_path: Path) -> None:
    contract = a_contract(format={"encoding": "shift_jis"})
    with pytest.raises(TextUndecodable, match="line 3, column 4:"):
        read_bytes(tmp_path, "a,b\n日本,2\n日,x".encode("shift_jis") + b"\xff,5\n", contract)


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ([["a", None, "c"], [1, 2, 3]], "cell B1 has no name"),
        ([[None], ["a", "b", "a"], [1, 2, 3]], "cell A2, cell C2 have the same name"),
        ([["a", "b"], [1, 2], [3, 4, None, 5]], "cell D3 has a value, and its column has no name"),
    ],
)
def test_a_refused_sheet_says_the_cell(tmp_path: Path, rows: list[list[Any]], where: str) -> None:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(buffer)
    with pytest.raises(HeaderInvalid, match=where):
        read_bytes(tmp_path, buffer.getvalue())


@pytest.mark.parametrize("name", ["_sluice_row_number", "_row_number", "_rules", "_values", "_raw"])
def test_columns_named_as_sluices_own_are_refused_with_what_to_rename(tmp_path: Path, name: str) -> None:
    said = rf"rename the columns '{name}'"
    for content in (f"{name},b\n9,1\n", f'{{"b": 1}}\n{{"b": 2, "{name}": 9}}\n'):
        with pytest.raises(HeaderInvalid, match=said):
            read_bytes(tmp_path, content.encode(), rows_per_partition=1)
