"""In JSON and JSON Lines, each object is a row with exact values, and anything else in place of a row is a misfit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flows.refinery.read.partition import Limits
from flows.refinery.read.rejections import EmptyFile, RecordTooLong, TooManyColumns
from tests.unit.flows.refinery.tables import a_contract, misfits, numbers, read_bytes, whole


def test_an_array_of_objects_is_a_table(tmp_path: Path) -> None:
    rows = [{"a": i, "b": f"x{i}", "c": None if i == 2 else i / 2} for i in range(1, 8)]
    partitions = read_bytes(tmp_path, json.dumps(rows, indent=2).encode(), rows_per_partition=3)
    assert [len(partition.frame) for partition in partitions] == [3, 3, 1]
    assert numbers(partitions) == list(range(1, 8))
    assert whole(partitions)["a"].tolist() == list(range(1, 8))
    assert partitions[0].source_format.type == "json"


def test_one_object_is_one_row(tmp_path: Path) -> None:
    (partition,) = read_bytes(tmp_path, b'{\n  "a": 1,\n  "b": "x"\n}\n')
    assert partition.frame.to_dict("list") == {"a": [1], "b": ["x"]}


def test_an_empty_array_is_a_table_without_rows(tmp_path: Path) -> None:
    (partition,) = read_bytes(tmp_path, b" [ ]\n")
    assert partition.rows_in == 0


def test_a_number_that_is_too_large_for_a_float_is_kept_as_it_is_written(tmp_path: Path) -> None:
    (partition,) = read_bytes(tmp_path, b'{"a": 1e400}\n{"a": 2.5}\n')
    assert partition.frame["a"].tolist() == ["1e400", 2.5]


def test_a_long_string_of_digits_is_not_a_number(tmp_path: Path) -> None:
    digits = "1" * 500
    assert whole(read_bytes(tmp_path, json.dumps({"a": digits}).encode()))["a"].tolist() == [digits]


def test_each_line_is_a_row_and_bad_lines_are_misfits(tmp_path: Path) -> None:
    lines = [
        '{"a": 1}',
        "",
        '{"a": 1, "a": 2}',
        '{"a": }',
        "[1]",
        "{}",
        '{"": 1}',
        '{"a": "\\ud800"}',
        '{"a": ' + "1" * 500 + "}",
        '{"a": ' + "[" * 100_000 + "}",
        '{"a": 9}',
    ]
    partitions = read_bytes(tmp_path, "\n".join(lines).encode())
    assert numbers(partitions) == [1, 10]
    assert [(m.row_number, m.reason, m.line) for m in misfits(partitions)] == [
        (2, "duplicate_key", 3),
        (3, "not_json", 4),
        (4, "not_an_object", 5),
        (5, "empty_object", 6),
        (6, "empty_column_name", 7),
        (7, "undecodable_text", 8),
        (8, "number_too_long", 9),
        (9, "nested_too_deep", 10),
    ]


def test_a_row_may_be_nested_200_levels_deep_and_no_deeper(tmp_path: Path) -> None:
    deep = {levels: "[" * (levels - 1) + "]" * (levels - 1) for levels in (200, 201, 985, 1_500)}
    partitions = read_bytes(tmp_path, "".join(f'{{"a": {value}}}\n' for value in deep.values()).encode())
    assert whole(partitions)["a"].tolist() == [deep[200]]
    assert [(m.row_number, m.reason) for m in misfits(partitions)] == [(n, "nested_too_deep") for n in (2, 3, 4)]


def test_rows_may_lack_columns_and_add_new_ones(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b'{"a": 1}\n{"b": "x"}\n', a_contract(format="jsonl"))
    frame = whole(partitions)
    assert frame["a"].isna().tolist() == [False, True]
    assert frame["b"].isna().tolist() == [True, False]


def test_values_keep_their_types_and_digits(tmp_path: Path) -> None:
    rows = [
        {"i": 2**60 + 1, "m": 2**60 + 1, "mixed": 1, "t": True, "n": [1, {"k": "é"}], "s": "007", "d": "2026-01-01"},
        {"i": 5, "m": None, "mixed": "x", "t": False, "n": None, "s": "", "d": "2026-01-02"},
    ]
    frame = whole(read_bytes(tmp_path, "\n".join(map(json.dumps, rows)).encode()))
    assert frame["i"].tolist() == [2**60 + 1, 5]
    assert frame["i"].dtype == np.int64
    assert frame["m"].tolist()[0] == 2**60 + 1
    assert frame["mixed"].tolist() == [1, "x"]
    assert frame["t"].dtype == bool
    assert frame["n"].tolist()[0] == '[1, {"k": "é"}]'
    assert frame["s"].fillna("missing").tolist() == ["007", "missing"]
    assert frame["d"].tolist() == ["2026-01-01", "2026-01-02"]


def test_values_that_are_not_objects_are_misfits(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b'[{"a": 1},\n 5, "x", null, {"a": 2, "a": 3}, {"a": 4}]')
    assert numbers(partitions) == [1, 6]
    assert [(m.row_number, m.reason, m.raw, m.line) for m in misfits(partitions)] == [
        (2, "not_an_object", "5", 2),
        (3, "not_an_object", '"x"', 2),
        (4, "not_an_object", "null", 2),
        (5, "duplicate_key", '{"a": 2, "a": 3}', 2),
    ]


def test_one_endless_value_is_rejected_at_the_limit(tmp_path: Path) -> None:
    limits = Limits(max_record_bytes=100_000)
    long = b'"' + b"x" * 5_000_000
    for content in (b'[{"a": ' + long, b'{"a": ' + long, b'{"a": 1}\n{"a": ' + long):
        with pytest.raises(RecordTooLong, match=r"line \d|value"):
            read_bytes(tmp_path, content, limits=limits)


def test_rows_that_each_add_a_column_are_rejected_at_the_limit(tmp_path: Path) -> None:
    lines = "\n".join(f'{{"c{i}": 1}}' for i in range(1000))
    with pytest.raises(TooManyColumns):
        read_bytes(tmp_path, lines.encode(), limits=Limits(max_columns=500), rows_per_partition=10)


def test_wide_rows_are_read_in_smaller_partitions(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({f"c{i}": i for i in range(100)}) for _ in range(50))
    partitions = read_bytes(tmp_path, lines.encode(), limits=Limits(max_partition_cells=1000))
    assert max(len(partition.frame) for partition in partitions) <= 10
    assert numbers(partitions) == list(range(1, 51))


def test_blank_lines_only_are_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(EmptyFile):
        read_bytes(tmp_path, b"\n" * 100_000, a_contract(format="jsonl"))
