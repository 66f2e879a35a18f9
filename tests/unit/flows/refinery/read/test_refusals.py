"""Content that cannot be read makes only its rows misfits, or the file is rejected with a message on what is wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.refinery.errors import FileRejected
from flows.refinery.read.rejections import (
    EmptyFile,
    EncodingUnknown,
    FormatNotAllowed,
    HeaderInvalid,
    JsonBroken,
    ParquetBroken,
    TextUndecodable,
    TooManyColumns,
    UnclosedQuote,
)
from tests.snapshot import check_snapshot
from tests.unit.flows.refinery.tables import a_contract, misfits, read_bytes, whole


def test_nul_bytes_in_a_small_file_make_only_their_rows_misfits(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"a,b\n1,2\n3,\0\n5,6\n")
    assert whole(partitions).to_dict("list") == {"a": ["1", "5"], "b": ["2", "6"]}
    assert [(misfit.reason, misfit.row_number, misfit.line) for misfit in misfits(partitions)] == [("nul_byte", 2, 3)]


def test_nul_bytes_at_the_end_of_a_file_are_one_misfit(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"a,b\n" + b"1,2\n" * 20 + b"\0" * 60)
    assert (len(whole(partitions)), [misfit.line for misfit in misfits(partitions)]) == (20, [22])


def test_a_nul_byte_makes_only_its_line_of_json_lines_a_misfit(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b'{"a": 1}\n{"a":\0}\n{"a": 3}\n')
    assert list(whole(partitions)["a"]) == [1, 3]
    assert [misfit.line for misfit in misfits(partitions)] == [2]


def _parquet(column: pa.Array) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"t": column}), buffer)
    return buffer.getvalue()


def _workbook(*rows: list[Any]) -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(buffer)
    return buffer.getvalue()


_REFUSED: dict[str, tuple[type[FileRejected], bytes]] = {
    "NUL in the header": (FormatNotAllowed, b"a,\0\n1,2\n"),
    "NUL far into the header": (FormatNotAllowed, b"aaaaaaaaaa,bbbbbbbb\0bb,ccccccccccc\n1,2,3\n"),
    "NULs for most of the file": (FormatNotAllowed, b"a,b\n1,2\n" + b"\0" * 99),
    "only NULs": (FormatNotAllowed, bytes(100)),
    "NumPy": (FormatNotAllowed, b"\x93NUMPY\x01\x00v\x00{'descr': '<i8'}\n" + bytes(64)),
    "PNG": (FormatNotAllowed, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))),
    "PDF": (FormatNotAllowed, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"),
    "SQLite": (FormatNotAllowed, b"SQLite format 3\0" + b"\0" * 100),
    "old Excel": (FormatNotAllowed, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100),
    "HTML": (FormatNotAllowed, b"<!DOCTYPE html><html><body>Access denied</body></html>"),
    "XML": (FormatNotAllowed, b"<?xml version='1.0'?><rows/>"),
    "bytes": (FormatNotAllowed, bytes(range(256)) * 4),
    "Latin letters of cp1252": (EncodingUnknown, "a,b\n1,Zürich\n2,Genève\n".encode("cp1252")),
    "empty": (EmptyFile, b""),
    "a column without a name": (HeaderInvalid, b"\na,,c\n1,2,3\n"),
    "an index column": (HeaderInvalid, b"\n,b\n0,2\n"),
    "a name twice": (HeaderInvalid, b"a,b,a\n1,2,3\n"),
    "a million columns": (TooManyColumns, b"c," * 999_999 + b"c\n1,2\n"),
    "an open quote": (UnclosedQuote, b'a,b\n1,2\n3," and\n4,5\n'),
    "an open quote after others": (UnclosedQuote, b'a,b\n5" pipe,"1""2",\n3,"x""y\n"\n4,"5\n'),
    "an open quote in the header": (UnclosedQuote, b'a,"b\n1,2\n'),
    "JSON without a colon": (JsonBroken, b'[{"a": 1},\n {"a" 2}]'),
    "JSON without a value": (JsonBroken, b'[{"a": 1},\n {"a": }]'),
    "JSON without a comma": (JsonBroken, b'[{"a": 1} {"a": 2}]'),
    "JSON cut short": (JsonBroken, b'[{"a": 1}, {"a": 2}'),
    "JSON and something": (JsonBroken, b'[{"a": 1}] x'),
    "JSON nested deep": (JsonBroken, b'[{"a": 1}, ' + b"[" * 100_000),
    "JSON broken far down": (JsonBroken, b"[" + b'{"a": "%s"},\n' % (b"x" * 1000) * 3000 + b"  oops]"),
    "Parquet in an unknown zone": (ParquetBroken, _parquet(pa.array([0], pa.timestamp("us", tz="Mars/Olympus_Mons")))),
    "a cell without a name": (HeaderInvalid, _workbook(["a", None, "c"], [1, 2, 3])),
    "cells of one name": (HeaderInvalid, _workbook([None], ["a", "b", "a"], [1, 2, 3])),
    "a value right of the header": (HeaderInvalid, _workbook(["a", "b"], [1, 2], [3, 4, None, 5])),
    **{
        f"Sluice's own {name}": (HeaderInvalid, f"{name},b\n9,1\n".encode())
        for name in ("_sluice_row_number", "_row_number", "_rules", "_values", "_raw")
    },
    "Sluice's own in a late key": (HeaderInvalid, b'{"b": 1}\n{"b": 2, "_raw": 9}\n'),
}


@pytest.mark.heavy
def test_the_messages_for_files_that_cannot_be_read_match_the_snapshot(tmp_path: Path) -> None:
    lines = []
    for name, (error, content) in _REFUSED.items():
        with pytest.raises(error) as refused:
            read_bytes(tmp_path, content, rows_per_partition=1)
        lines.append(f"{name}\n  {refused.value.code}: {refused.value}\n")
    check_snapshot("file_rejections", "\n".join(lines))


def test_text_that_is_not_in_the_declared_encoding_is_rejected_with_line_and_column(tmp_path: Path) -> None:
    contract = a_contract(format={"encoding": "shift_jis"})
    with pytest.raises(TextUndecodable, match="line 3, column 4:"):
        read_bytes(tmp_path, "a,b\n日本,2\n日,x".encode("shift_jis") + b"\xff,5\n", contract)
