"""Property-based tests of the readers with random tables and random bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.refinery.errors import FileRejected
from flows.refinery.read.partition import Partition
from tests.unit.flows.refinery.tables import a_contract, misfits, numbers, read_bytes, whole

pytestmark = pytest.mark.heavy

# Strings that a CSV file can contain. NUL and lone surrogates are invalid, and readers treat \r as a line end.
FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12) | st.sampled_from(
    ["", " ", "0", "007", "1.5", '"', '""', ",", ";", "\n", "NA", "nan", "True", "a,b", 'say "hi"', "é", "\u2028"]
)
DELIMITER = st.sampled_from(",;\t|")


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    width = draw(st.integers(1, 5))
    return draw(st.lists(st.lists(FIELD, min_size=width, max_size=width), max_size=25))


def all_text(width: int, delimiter: str) -> dict[str, object]:
    return {
        "format": {"type": "csv", "delimiter": delimiter, "missing_values": [], "encoding": "utf-8"},
        "columns": {f"c{index}": "string" for index in range(width)},
    }


def in_a_folder(content: bytes, **options: object) -> list[Partition]:
    with tempfile.TemporaryDirectory() as folder:
        return read_bytes(Path(folder), content, **options)  # type: ignore[arg-type]


def require_every_row_once(partitions: list[Partition]) -> None:
    found = sorted(numbers(partitions) + [misfit.row_number for misfit in misfits(partitions)])
    assert found == list(range(1, len(found) + 1))
    for partition in partitions:
        assert len(partition.frame) == len(partition.row_numbers)
        assert list(partition.row_numbers) == sorted(partition.row_numbers)
        assert all(len(misfit.raw.encode()) <= 1024 for misfit in partition.misfits)


@settings(max_examples=300)
@given(
    table=tables(),
    delimiter=DELIMITER,
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    rows_per_partition=st.integers(1, 8),
)
def test_what_a_csv_writer_writes_is_read_back_unchanged(
    table: list[list[str]], delimiter: str, end: str, quoting: int, rows_per_partition: int
) -> None:
    width = len(table[0]) if table else 1
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow([f"c{index}" for index in range(width)])
    # Python's csv module does not quote a blank field, so a row with only such a field becomes a blank line, not a row.
    table = [row for row in table if width > 1 or quoting == csv.QUOTE_ALL or row[0].strip(" \t")]
    writer.writerows(table)
    partitions = in_a_folder(
        buffer.getvalue().encode(),
        contract=a_contract(**all_text(width, delimiter)),
        rows_per_partition=rows_per_partition,
    )
    require_every_row_once(partitions)
    assert not misfits(partitions)
    assert whole(partitions).to_numpy().tolist() == table
    assert all(len(partition.frame) <= rows_per_partition for partition in partitions)


@settings(max_examples=300)
@given(
    table=tables(),
    delimiter=st.sampled_from(["||", "::", "~|~", ",", ";", "\x01", ", "]),
    end=st.sampled_from(["\n", "\r\n"]),
    trailing=st.booleans(),
    quotes_all=st.booleans(),
    rows_per_partition=st.integers(1, 8),
)
def test_rows_with_any_delimiter_and_a_trailing_one_are_read_back_unchanged(
    table: list[list[str]], delimiter: str, end: str, trailing: bool, quotes_all: bool, rows_per_partition: int
) -> None:
    width = len(table[0]) if table else 1
    table = [row for row in table if quotes_all or any(field.strip(" \t") for field in row)]

    def written(field: str) -> str:
        needs = quotes_all or any(sign in field for sign in {*delimiter, '"', "\n", " "})
        return '"' + field.replace('"', '""') + '"' if needs else field

    names = [f"c{index}" for index in range(width)]
    lines = [delimiter.join(map(written, row)) + delimiter * trailing + end for row in [names, *table]]
    fields = all_text(width, delimiter)
    fields["format"] = {**fields["format"], "trailing_delimiter": trailing}  # type: ignore[dict-item]
    partitions = in_a_folder(
        "".join(lines).encode(), contract=a_contract(**fields), rows_per_partition=rows_per_partition
    )
    require_every_row_once(partitions)
    assert not misfits(partitions)
    assert whole(partitions).to_numpy().tolist() == table


@settings(max_examples=200)
@given(table=tables(), broken=st.lists(st.integers(0, 24)), rows_per_partition=st.integers(1, 8))
def test_ragged_rows_never_shift_or_hide_the_others(
    table: list[list[str]], broken: list[int], rows_per_partition: int
) -> None:
    table = [[f"r{number}", *row] for number, row in enumerate(table, start=1)]
    width = len(table[0]) if table else 2
    bad = {index for index in broken if index < len(table)}
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([f"c{index}" for index in range(width)])
    for index, row in enumerate(table):
        writer.writerow(row if index not in bad else [*row, "x"] if index % 2 else row[:-1])
    partitions = in_a_folder(
        buffer.getvalue().encode(), contract=a_contract(**all_text(width, ",")), rows_per_partition=rows_per_partition
    )
    require_every_row_once(partitions)
    assert {misfit.row_number - 1 for misfit in misfits(partitions)} == bad
    kept = [row for index, row in enumerate(table) if index not in bad]
    assert whole(partitions).to_numpy().tolist() == kept
    assert [f"r{number}" for number in numbers(partitions)] == [row[0] for row in kept]


VALUE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | FIELD | st.lists(st.integers())


@settings(max_examples=150)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abcd"), VALUE, min_size=1), max_size=20),
    lines=st.booleans(),
    rows_per_partition=st.integers(1, 8),
)
def test_numbers_in_json_rows_are_read_back_unchanged(
    rows: list[dict[str, object]], lines: bool, rows_per_partition: int
) -> None:
    content = "\n".join(map(json.dumps, rows)) if lines and rows else json.dumps(rows, indent=1)
    partitions = in_a_folder(
        content.encode(),
        contract=a_contract(format="jsonl" if lines and rows else "json"),
        rows_per_partition=rows_per_partition,
    )
    require_every_row_once(partitions)
    assert not misfits(partitions)
    for partition in partitions:
        for number, (_, found) in zip(partition.row_numbers, partition.frame.iterrows(), strict=True):
            for name, value in rows[number - 1].items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    assert found[name] == value


def samples() -> list[bytes]:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2, None], "b": ["x", "y", None]}), sink)
    text = b'a,b\n1,"x"\n2,y\n'
    return [text, gzip.compress(text), sink.getvalue(), b'[{"a": 1}, {"a": 2}]', b'{"a": 1}\n{"b": 2}\n']


PIECES = [
    "a",
    "1",
    "007",
    '"',
    ",",
    "\n",
    "\r",
    " ",
    ";",
    "é",
    "\0",
    '""',
    '"a,b"',
    "{",
    "}",
    "[",
    "]",
    ":",
    '{"a":1}\n',
]


@st.composite
def any_bytes(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["bytes", "pieces", "damaged"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "pieces":
        return "".join(draw(st.lists(st.sampled_from(PIECES), max_size=40))).encode()
    content = bytearray(draw(st.sampled_from(samples())))
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))])


@settings(max_examples=500)
@given(content=any_bytes(), rows_per_partition=st.integers(1, 5))
@example(content=b"a,b\n1\n2,3,4\n", rows_per_partition=5)
@example(content=b'{"a":9999999999999999999}[', rows_per_partition=1)
def test_any_input_is_read_or_rejected_and_every_row_counted_once(content: bytes, rows_per_partition: int) -> None:
    try:
        partitions = in_a_folder(content, rows_per_partition=rows_per_partition)
    except FileRejected as error:
        rejected = error
    else:
        require_every_row_once(partitions)
        return
    assert rejected.code != FileRejected.code
    assert str(rejected)
