"""Parquet, XLSX and compressed files are read completely and in bounded memory, or they are rejected."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import io
import pickle
import re
import resource
import tracemalloc
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.refinery.read import byte_source
from flows.refinery.read.parquet_reader import read_parquet
from flows.refinery.read.partition import Limits
from flows.refinery.read.rejections import (
    BytesWithoutText,
    CompressionBroken,
    EmptyFile,
    ExpandsTooMuch,
    FileTooLarge,
    FormatMismatch,
    FormatNotAllowed,
    HeaderInvalid,
    ParquetBroken,
    RecordTooLong,
    SheetMissing,
    TooManyColumns,
    WorkbookBroken,
)
from tests.unit.flows.refinery.tables import a_contract, misfits, numbers, read_bytes, whole

CSV = b"a,b\n" + b"".join(b"%d,x%d\n" % (i, i) for i in range(1000))


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue().to_pybytes())


def parquet(table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def workbook(rows: list[list[Any]], **sheets: list[list[Any]]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for name, others in sheets.items():
        sheet = book.create_sheet(name)
        for row in others:
            sheet.append(row)
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def with_sheet(content: bytes, xml: bytes) -> bytes:
    """Return the workbook with the XML of its first sheet replaced."""
    source = zipfile.ZipFile(io.BytesIO(content))
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, xml if name == "xl/worksheets/sheet1.xml" else source.read(name))
    return sink.getvalue()


# --- compression --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_compressed_files_read_like_plain_ones(tmp_path: Path, pack: Any) -> None:
    contents = [
        CSV,
        b'{"a": 1}\n{"a": 2}\n',
        b'[{"a": 1}]',
        parquet(pa.table({"a": [1, 2]})),
        workbook([["a"], [1]]),
    ]
    for content in contents:
        plain, packed = read_bytes(tmp_path, content), read_bytes(tmp_path, pack(content))
        pd.testing.assert_frame_equal(whole(plain), whole(packed))
        assert packed[0].source_format.compression in ("gzip", "zstd")


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_compressed_file_that_is_cut_short_is_never_half_published(tmp_path: Path, pack: Any) -> None:
    packed = pack(CSV)
    for broken in (packed[:-1], packed[:-9], packed[: len(packed) // 2], packed + b"more", pack(packed)):
        with pytest.raises(CompressionBroken):
            read_bytes(tmp_path, broken)


def test_several_compressed_members_are_one_file(tmp_path: Path) -> None:
    for pack in (gzip.compress, zstd):
        assert len(whole(read_bytes(tmp_path, pack(b"a\n1\n") + pack(b"2\n")))) == 2


@pytest.mark.heavy
@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_decompression_bomb_is_rejected_in_little_memory(tmp_path: Path, pack: Any) -> None:
    limits = Limits(expansion_grace_bytes=1 << 18, max_expansion_ratio=10)
    for beginning, rest in [(b"a,b\n", b"1,2\n"), (b"", b"a"), (b"", b'{"a": 1}\n'), (b"[", b" ")]:
        packed = pack(beginning) + pack(rest * (1_000_000 // len(rest))) * 200
        assert len(packed) < 1_000_000
        tracemalloc.start()
        with pytest.raises((ExpandsTooMuch, RecordTooLong)):
            read_bytes(tmp_path, packed, limits=limits, rows_per_partition=2_500)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()


def test_more_expanded_bytes_than_the_limit_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(FileTooLarge):
        read_bytes(tmp_path, gzip.compress(CSV * 100), limits=Limits(max_expanded_bytes=100_000))
    with pytest.raises(FileTooLarge):
        read_bytes(tmp_path, CSV, limits=Limits(max_file_bytes=10))


def test_nothing_compressed_is_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(EmptyFile):
        read_bytes(tmp_path, gzip.compress(b""))


# --- rejected files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_is_rejected_and_never_loaded(tmp_path: Path, protocol: int) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return pytest.fail, ("the pickle was loaded",)

    tables = [pd.DataFrame({"a": ["x"] * rows}) for rows in (1, 100_000)]
    for content in (*(pickle.dumps(table, protocol) for table in tables), pickle.dumps(Trap(), protocol)):
        for packed in (content, gzip.compress(content, 1)):
            with pytest.raises(FormatNotAllowed):
                read_bytes(tmp_path, packed)


@pytest.mark.parametrize("content", [b"Vid\nVa\np0\n", b"cars\ncat\np0\nx\n", b"p0\n" * 3, b"Vid\np0\n.\n"])
def test_a_table_that_begins_like_a_pickle_is_a_table(tmp_path: Path, content: bytes) -> None:
    assert whole(read_bytes(tmp_path, content, a_contract(format="csv"))).shape == (content.count(b"\n") - 1, 1)


def test_an_archive_that_is_not_a_workbook_is_rejected(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("data.csv", "a,b\n1,2\n")
    with pytest.raises(FormatNotAllowed):
        read_bytes(tmp_path, sink.getvalue())


@pytest.mark.parametrize(
    ("declared", "content"),
    [("csv", parquet(pa.table({"a": [1]}))), ("parquet", CSV), ("xlsx", CSV), ("json", workbook([["a"]]))],
)
def test_a_file_of_another_format_than_the_contract_declares_is_rejected(
    tmp_path: Path, declared: str, content: bytes
) -> None:
    with pytest.raises(FormatMismatch):
        read_bytes(tmp_path, content, a_contract(format=declared))


# --- Parquet ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_row_of_parquet_with_a_string_that_is_not_utf8_is_a_misfit(tmp_path: Path, dictionary: bool) -> None:
    texts = pa.array([b"a", b"caf\xe9", None, b"caf\xc3\xa9"]).view(pa.string())
    content = parquet(pa.table({"n": [1, 2, 3, 4], "t": texts}), use_dictionary=dictionary)
    partitions = read_bytes(tmp_path, content, rows_per_partition=3)
    assert [(misfit.row_number, misfit.reason, misfit.raw) for misfit in misfits(partitions)] == [
        (2, "undecodable_text", "2,caf\\xe9")
    ]
    assert numbers(partitions) == [1, 3, 4]
    assert list(whole(partitions)["t"].dropna()) == ["a", "café"]


def test_parquet_is_read_in_partitions_and_keeps_its_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "i": pa.array([1, 2, 3, 4, 5]),
            "m": pa.array([1, None, 3, None, 2]),
            "large": pa.array([2**60 + 1, None, 3, None, 2]),
            "s": pa.array(["x", None, "", "007", "é"]),
            "t": pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 5),
            "l": pa.array([[1], None, [], [2, 3], [4]]),
        }
    )
    partitions = read_bytes(tmp_path, parquet(table, row_group_size=2), rows_per_partition=2)
    assert numbers(partitions) == [1, 2, 3, 4, 5]
    first = partitions[0].frame
    assert first["i"].dtype == np.int64
    assert first["m"].dtype == np.float64
    assert first["large"].tolist() == [2**60 + 1, None]
    assert first["s"].dtype == "str"
    assert str(first["t"].dtype).startswith("datetime64")
    assert whole(partitions)["l"].tolist()[3] == "[2, 3]"


def test_row_groups_that_were_read_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Reads from a plain OSFile count as Arrow's memory.
    monkeypatch.setattr(byte_source, "open_source", lambda path: pa.OSFile(str(path)))
    path, numbers = tmp_path / "t.parquet", np.random.default_rng(1).integers(0, 1 << 62, 400_000)
    pq.write_table(pa.table({"n": numbers}), path, row_group_size=10_000)
    before, in_memory = pa.total_allocated_bytes(), []
    for _ in read_parquet(path, 10_000, Limits()):
        in_memory.append(pa.total_allocated_bytes() - before)
    assert len(in_memory) == 40
    assert max(in_memory) < numbers.nbytes / 4


def highest_memory(path: Path) -> int:
    """Read a Parquet file in this process, and return the highest number of bytes that Arrow used between two
    partitions."""
    before, in_memory = pa.total_allocated_bytes(), [0]
    for _ in read_parquet(path, 250_000, Limits()):
        in_memory.append(pa.total_allocated_bytes() - before)
    return max(in_memory)


@pytest.mark.parametrize("dictionary", [True, False])
def test_strings_that_do_not_repeat_are_not_kept_until_their_row_group_ends(tmp_path: Path, dictionary: bool) -> None:
    texts = pa.array([f"{number:0150d}" for number in range(200_000)])
    nested = pa.StructArray.from_arrays([texts], ["text"])
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"flat": texts, "nested": nested}), path, use_dictionary=dictionary)
    assert highest_memory(path) < texts.nbytes


def test_the_columns_of_a_large_row_group_are_not_in_memory_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reads from a plain OSFile count as Arrow's memory.
    monkeypatch.setattr(byte_source, "open_source", lambda path: pa.OSFile(str(path)))
    path, numbers = tmp_path / "t.parquet", np.random.default_rng(1).integers(0, 1 << 62, 12_000_000)
    pq.write_table(pa.table({"n": numbers}), path, row_group_size=len(numbers), use_dictionary=False)
    assert highest_memory(path) < numbers.nbytes / 2


def test_a_row_group_whose_strings_repeat_at_first_is_read_in_order(tmp_path: Path) -> None:
    rows = 160_000
    texts = [f"text {number % 100}" if number < rows / 2 else f"{number:040d}" for number in range(rows)]
    early = [None if number < 20_000 else f"{number:040d}" for number in range(rows)]
    columns = {"id": range(rows), "late": texts, "a.early": early, "few": [f"{number % 7}" for number in range(rows)]}
    columns |= {"listed": [[text] for text in texts]}
    partitions = read_bytes(tmp_path, parquet(pa.table({name: list(some) for name, some in columns.items()})))
    read = whole(partitions)
    assert numbers(partitions) == list(range(1, rows + 1))
    assert read["id"].tolist() == list(range(rows))
    assert read["late"].tolist() == texts
    assert [None if pd.isna(value) else value for value in read["a.early"]] == early
    assert read["few"].tolist() == columns["few"]
    assert read["listed"].tolist() == [f'["{text}"]' for text in texts]


def test_long_strings_that_repeat_after_many_short_ones_take_little_memory(tmp_path: Path) -> None:
    long = [f"{number}" * 1_000_000 for number in range(3)]
    few = pa.array([None] * 10_000 + [f"{number:030d}" for number in range(150_000)])
    texts = pa.concat_arrays([few, *(pa.array([long[number % 3]] * 3) for number in range(100))])
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"t": texts}), path, row_group_size=len(texts), dictionary_pagesize_limit=16 << 20)
    assert highest_memory(path) < 128 << 20


def test_a_partition_of_long_strings_is_no_larger_than_the_limit(tmp_path: Path) -> None:
    long, limits = pa.array(["x" * 1_000_000]), Limits()
    texts = long.take(pa.array([0] * 100))
    table = pa.table({"text": texts, "struct": pa.StructArray.from_arrays([texts], ["s"]), "id": range(100)})
    found = read_bytes(tmp_path, parquet(table))
    sizes = [partition.frame["text"].str.len().sum() * 2 for partition in found]
    assert limits.max_block_bytes / 4 < max(sizes[:-1]) <= limits.max_block_bytes
    assert pd.concat(partition.frame["id"] for partition in found).to_list() == list(range(100))


def test_small_row_groups_become_one_partition(tmp_path: Path) -> None:
    numbers = list(range(1_000))
    found = read_bytes(tmp_path, parquet(pa.table({"n": numbers, "t": map(str, numbers)}), row_group_size=10))
    assert [partition.frame["n"].to_list() for partition in found] == [numbers]


def test_a_map_is_read_as_a_list_of_pairs(tmp_path: Path) -> None:
    maps = pa.array([[("k", 1)], None, [("a", 2), ("b", 3)]] * 1_000, pa.map_(pa.string(), pa.int64()))
    frame = whole(read_bytes(tmp_path, parquet(pa.table({"m": maps})), limits=Limits(max_block_bytes=1_000)))
    assert frame["m"].head(3).fillna("").to_list() == ['[["k", 1]]', "", '[["a", 2], ["b", 3]]']
    assert len(frame) == 3_000


def test_nested_values_that_json_cannot_represent_become_strings(tmp_path: Path) -> None:
    values = [{"day": dt.date(2024, 5, 1), "name": "Zoë".encode(), "price": Decimal("1.10")}]
    (text,) = whole(read_bytes(tmp_path, parquet(pa.table({"a": [values]}))))["a"]
    assert text == '[{"day": "2024-05-01", "name": "Zoë", "price": "1.10"}]'


def test_nested_bytes_that_are_not_text_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(BytesWithoutText):
        read_bytes(tmp_path, parquet(pa.table({"a": [[{"raw": b"\xff"}]]})))


def test_parquet_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    (partition,) = read_bytes(
        tmp_path, parquet(pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.string())}))
    )
    assert list(partition.frame.columns) == ["a", "b"]
    assert partition.rows_in == 0


def test_broken_parquet_is_rejected(tmp_path: Path) -> None:
    good = parquet(pa.table({"a": list(range(1000)), "b": [str(i) for i in range(1000)]}))
    for broken in (good[:100], good[:-8], b"PAR1" + b"\0" * 100, good[:50] + bytes(200) + good[250:]):
        with pytest.raises(ParquetBroken):
            read_bytes(tmp_path, broken)


def test_parquet_with_a_duplicate_or_empty_column_name_is_rejected(tmp_path: Path) -> None:
    for names in (["a", "a"], ["a", ""]):
        with pytest.raises(HeaderInvalid):
            read_bytes(tmp_path, parquet(pa.table([pa.array([1]), pa.array([2])], names=names)))


def test_a_long_string_that_many_rows_repeat_is_rejected(tmp_path: Path) -> None:
    text = pa.array(["x" * 10_000_000])
    table = pa.table({"a": pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), text)})
    content = parquet(table, compression="zstd")
    assert len(content) < 1_000_000
    with pytest.raises(ExpandsTooMuch):
        read_bytes(tmp_path, content)


# --- XLSX ---------------------------------------------------------------------------------------------------


def test_a_sheet_is_a_table(tmp_path: Path) -> None:
    content = workbook(
        [
            ["id", "n", "x", "day", "flag", None],
            ["a", 1, 1.5, pd.Timestamp("2026-01-02 03:04:05").to_pydatetime(), True],
            [None, None, None, None, None],
            [17, 2, None, pd.Timestamp("2026-01-03").to_pydatetime(), False],
        ]
    )
    (partition,) = read_bytes(tmp_path, content, a_contract(columns={"id": "string"}))
    frame = partition.frame
    assert list(frame.columns) == ["id", "n", "x", "day", "flag"]
    assert frame["id"].tolist() == ["a", "17"]
    assert frame["n"].dtype == np.int64
    assert frame["x"].isna().tolist() == [False, True]
    assert frame["day"].tolist() == [pd.Timestamp("2026-01-02 03:04:05"), dt.date(2026, 1, 3)]
    assert frame["flag"].dtype == bool
    assert numbers([partition]) == [1, 2]


def test_a_sheet_is_chosen_by_name_or_number(tmp_path: Path) -> None:
    content = workbook([["a"], [1]], other=[["about this file"], ["b"], [2]])
    for sheet in ("other", 1):
        contract = a_contract(format={"type": "xlsx", "sheet": sheet, "skip_lines": 1})
        assert whole(read_bytes(tmp_path, content, contract)).to_dict("list") == {"b": [2]}
    for sheet in ("othre", 7, -1):
        with pytest.raises(SheetMissing):
            read_bytes(tmp_path, content, a_contract(format={"type": "xlsx", "sheet": sheet}))


def test_headers_and_stray_values_of_a_sheet_are_checked(tmp_path: Path) -> None:
    faulty: list[list[list[Any]]] = [[["a", "a"], [1, 2]], [["a", None, "c"], [1, 2, 3]], [["a"], [1, 2]]]
    for rows in faulty:
        with pytest.raises(HeaderInvalid):
            read_bytes(tmp_path, workbook(rows))
    with pytest.raises(EmptyFile):
        read_bytes(tmp_path, workbook([]))
    with pytest.raises(TooManyColumns):
        read_bytes(tmp_path, workbook([[f"c{i}" for i in range(20)]]), limits=Limits(max_columns=10))


SHEET = (
    b'<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    b"<sheetData>%s</sheetData></worksheet>"
)


@pytest.mark.parametrize(
    "cells",
    [
        b'<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>',
        b"<row r='1'><c r='A1'><v>1</v></c></row><row r = '1048576'><c  r =\n'XFD1048576'><v>1</v></c></row>",
        b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row><row><c><v>1</v></c></row>',
        b'<row r="1048570">' + b"<c><v>1</v></c>" * 1000 + b"</row>",
    ],
)
def test_a_sheet_with_cells_far_apart_is_rejected(tmp_path: Path, cells: bytes) -> None:
    with pytest.raises(FileTooLarge):
        read_bytes(tmp_path, with_sheet(workbook([["a"], [1]]), SHEET % cells))


def test_a_workbook_that_unpacks_to_too_much_is_rejected(tmp_path: Path) -> None:
    content = with_sheet(workbook([["a"], [1]]), SHEET % (b"<row>" + b" " * 5_000_000 + b"</row>"))
    with pytest.raises(FileTooLarge):
        read_bytes(tmp_path, content, limits=Limits(max_workbook_bytes=1_000_000))


def test_a_workbook_that_claims_wrong_sizes_is_still_measured(tmp_path: Path) -> None:
    content = bytearray(with_sheet(workbook([["a"], [1]]), SHEET % (b" " * 5_000_000)))
    real = (5_000_000 + len(SHEET) - 2).to_bytes(4, "little")
    for match in list(re.finditer(re.escape(real), bytes(content))):
        content[match.start() : match.end()] = (100).to_bytes(4, "little")
    with pytest.raises(FileTooLarge):
        read_bytes(tmp_path, bytes(content), limits=Limits(max_workbook_bytes=1_000_000))


def test_entities_in_a_workbook_are_not_expanded(tmp_path: Path) -> None:
    bomb = (
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "'
        + b"z" * 1000
        + b'">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 50) for i in range(8))
    )
    sheet = bomb + b"]>" + (SHEET % b'<row r="1"><c r="A1" t="inlineStr"><is><t>&i;</t></is></c></row>')[21:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(WorkbookBroken, EmptyFile):
        read_bytes(tmp_path, with_sheet(workbook([["a"], [1]]), sheet))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_broken_workbook_is_rejected(tmp_path: Path) -> None:
    good = workbook([["a"], [1]])
    for broken in (good[:200], good[:-30], with_sheet(good, b"<worksheet><sheetData><row><c r='A1'>")):
        with pytest.raises((WorkbookBroken, EmptyFile)):
            read_bytes(tmp_path, broken)


def with_errors(rows: list[list[Any]], **sheets: list[list[Any]]) -> bytes:
    """Return a workbook in which every string that begins with # is an error cell."""
    book = openpyxl.load_workbook(io.BytesIO(workbook(rows, **sheets)))
    for cell in (cell for sheet in book.worksheets for row in sheet.iter_rows() for cell in row):
        if isinstance(cell.value, str) and cell.value.startswith("#"):
            cell.data_type = "e"
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


@pytest.mark.parametrize("rows_per_partition", [1, 2, 100])
def test_rows_with_an_error_cell_are_misfits_and_never_missing_values(tmp_path: Path, rows_per_partition: int) -> None:
    rows: list[list[Any]] = [["id", "v"], [1, "#DIV/0!"], [2, 5], [None, None], ["#N/A", None], [4, "#REF!"], [5, None]]
    partitions = read_bytes(tmp_path, with_errors(rows), rows_per_partition=rows_per_partition)
    assert numbers(partitions) == [2, 5]
    assert whole(partitions)["id"].tolist() == [2, 5]
    assert [(misfit.row_number, misfit.reason, misfit.raw) for misfit in misfits(partitions)] == [
        (1, "error_cell", "#DIV/0! in row 2: 1,"),
        (3, "error_cell", "#N/A in row 5: ,"),
        (4, "error_cell", "#REF! in row 6: 4,"),
    ]


def test_error_cells_of_another_sheet_do_not_count(tmp_path: Path) -> None:
    content = with_errors([["id"], [1]], other=[["id"], ["#N/A"]])
    assert misfits(read_bytes(tmp_path, content)) == []
    contract = a_contract(format={"sheet": "other"})
    assert [misfit.row_number for misfit in misfits(read_bytes(tmp_path, content, contract))] == [1]


def test_formats_that_show_leading_zeros_are_listed(tmp_path: Path) -> None:
    book = openpyxl.load_workbook(io.BytesIO(workbook([["zip", "price"], [1234, 2.5]])))
    book.worksheets[0]["A2"].number_format = "00000"
    book.worksheets[0]["B2"].number_format = "0.00"
    content = io.BytesIO()
    book.save(content)
    (partition,) = read_bytes(tmp_path, content.getvalue())
    assert partition.source_format.padding_formats == ("00000",)
    assert partition.frame["zip"].tolist() == [1234]


def test_the_ranges_of_merged_cells_are_counted(tmp_path: Path) -> None:
    book = openpyxl.load_workbook(io.BytesIO(workbook([["id", "v"], [1, "a"], [2, None], [3, "b"]])))
    book.worksheets[0].merge_cells("B2:B3")
    content = io.BytesIO()
    book.save(content)
    (partition,) = read_bytes(tmp_path, content.getvalue())
    assert partition.source_format.merged_ranges == 1
    assert partition.frame["v"].isna().tolist() == [False, True, False]


def test_error_cells_are_found_in_a_sheet_without_cell_references(tmp_path: Path) -> None:
    places = re.compile(rb' r="[A-Z]*[0-9]+"')
    content = repacked(with_errors([["id", "v"], [1, 2], [3, "#REF!"]]), lambda part: places.sub(b"", part))
    assert [misfit.raw for misfit in misfits(read_bytes(tmp_path, content))] == ["#REF! in row 3: 3,"]


def repacked(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a workbook with `change` applied to the XML of each sheet."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(result, "w") as target:
        for name in source.namelist():
            part = source.read(name)
            target.writestr(name, change(part) if name.startswith("xl/worksheets/") else part)
    return result.getvalue()


def test_an_error_cell_in_the_header_is_rejected_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(HeaderInvalid, match=r"row 1.*#N/A"):
        read_bytes(tmp_path, with_errors([["id", "#N/A"], [1, 2]]))
