"""With the contract proposed for a sample, exactly the sample's values are published and no row is quarantined."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flows.refinery.contract.loading import CONTRACT_FILE, load_contract
from flows.refinery.errors import FileRejected
from flows.refinery.preprocess.table_steps import clean_name
from flows.refinery.propose.proposal import propose_contract
from flows.refinery.refine import refine_file
from tests.cases.all_cases import CASES
from tests.cases.case import Case

pytestmark = pytest.mark.heavy
Table = Mapping[str, Sequence[Any]]


def published(content: bytes) -> dict[str, list[Any]]:
    """Propose a contract from a file, process the file with it, and return column → published values."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sample").write_bytes(content)
        text = propose_contract(folder / "sample", "things").text
        (folder / "things").mkdir()
        (folder / "things" / CONTRACT_FILE).write_text(text, encoding="utf-8")
        refined = refine_file(folder / "sample", load_contract(folder / "things"), folder)
        assert (refined.rejected, refined.quarantined) == ((), {}), text
        values: dict[str, list[Any]] = pq.read_table(refined.outputs[0].path).to_pydict()
    return values


def plain(value: Any) -> Any:
    """Normalize a value, so that values which mean the same are equal.

    Times of day and booleans become strings, and a timestamp at midnight becomes its date.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dt.datetime):
        moment = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
        return str(moment.date()) if moment.time() == dt.time() else str(moment)
    return str(value) if isinstance(value, dt.date | dt.time) else value


def assert_same(values: Table, right: Table) -> None:
    names = [clean_name(name) for name in right]
    assert list(values) == (names if len(set(names)) == len(names) else list(values))
    assert [list(map(plain, column)) for column in values.values()] == [
        list(map(plain, column)) for column in right.values()
    ]


# --- random tables in every format ------------------------------------------------------------------------------------

_FIRST, _LAST = dt.datetime(1905, 1, 1), dt.datetime(2100, 1, 1)  # noqa: DTZ001 hypothesis adds zones itself
_NUMBERS = st.decimals(-(10**6), 10**6, places=2)
_TEXT = st.text(st.characters(codec="utf-8", categories=("L", "Nd", "P", "Zs")), min_size=1, max_size=8).map(str.strip)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "small": st.integers(-(10**9), 10**9),
    "number": _NUMBERS.map(float).filter(lambda value: value != 0 or math.copysign(1, value) > 0),
    "flag": st.booleans(),
    "day": st.dates(_FIRST.date(), _LAST.date()),
    "moment": st.datetimes(_FIRST, _LAST).map(lambda moment: moment.replace(microsecond=0)),
    "code": st.integers(0, 999).map(lambda number: f"{number:05d}"),
    "word": st.sampled_from(["NA", "DE", "None", "x", "Łódź"]),
    "text": _TEXT.filter(lambda text: text.strip() != "" and not text.startswith(("'", "ï»¿"))),
}
# These values are used only in formats that keep every digit.
EXACT: dict[str, st.SearchStrategy[Any]] = {
    "uint64": st.integers(2**63, 2**64 - 1),
    "large": st.integers(2**53, 2**63 - 1),
    "decimal": st.decimals(Decimal("1e17"), Decimal("1e18"), places=5),
}


@st.composite
def tables(draw: st.DrawFn, kinds: Mapping[str, st.SearchStrategy[Any]]) -> dict[str, list[Any]]:
    """Generate tables of at least two rows: a column `id`, and columns of random types, named after their types."""
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=2, max_size=5, unique=True))
    rows = draw(st.integers(2, 12))
    table: dict[str, list[Any]] = {"id": list(range(1, rows + 1))}
    for kind in chosen:
        table[kind] = draw(st.lists(kinds[kind], min_size=rows, max_size=rows))
        if draw(st.booleans()):
            table[kind][draw(st.integers(0, rows - 1))] = None
    return table


def _as_text(value: Any, decimal: str) -> str:
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace(".", decimal) if isinstance(value, float | Decimal) else text


def _csv(table: Table, *, decimal: str = ".", encoding: str = "utf-8", **dialect: Any) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, **dialect)
    writer.writerow(table)
    writer.writerows([_as_text(value, decimal) for value in row] for row in zip(*table.values(), strict=True))
    return text.getvalue().encode(encoding)


def _rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _json_value(value: Any) -> Any:
    return str(value) if isinstance(value, dt.date | Decimal) else value


def _json_lines(table: Table) -> bytes:
    rows = [{name: _json_value(value) for name, value in row.items()} for row in _rows(table)]
    lines = "\n".join(json.dumps(row) for row in rows)
    for column in table.values():  # JSON allows numbers of any length, but json.dumps writes no Decimal
        for value in column:
            if isinstance(value, Decimal):
                lines = lines.replace(f'"{value}"', str(value))
    return lines.encode()


def _json(table: Table) -> bytes:
    return b"[" + _json_lines(table).replace(b"\n", b",\n") + b"]"


def _parquet(table: Table) -> bytes:
    types = {"uint64": pa.uint64(), "decimal": pa.decimal128(38, 5)}
    written = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(column, types.get(name)) for name, column in table.items()}), written)
    return written.getvalue()


def _xlsx(table: Table) -> bytes:
    book = openpyxl.Workbook()
    book.active.append(list(table))
    for row in zip(*table.values(), strict=True):
        book.active.append(row)
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()


WRITERS: dict[str, tuple[Callable[[Table], bytes], bool]] = {
    "CSV": (_csv, True),
    "TSV": (lambda table: _csv(table, delimiter="\t"), True),
    "CSV of semicolons and commas": (lambda table: _csv(table, delimiter=";", decimal=","), False),
    "CSV, all quoted, UTF-16": (lambda table: _csv(table, quoting=csv.QUOTE_ALL, encoding="utf-16"), True),
    "CSV, gzip": (lambda table: gzip.compress(_csv(table, delimiter="|")), True),
    "JSON Lines": (_json_lines, True),
    "JSON": (_json, True),
    "Parquet": (_parquet, True),
    "XLSX": (_xlsx, False),
}


def _right(table: Table, form: str) -> dict[str, list[Any]]:
    """Return the table as it should be published: numbers with too many digits for a number column become strings."""
    kept = {"uint64", "decimal"} | ({"large"} if "SV" in form else set())
    return {
        name: [str(value) if name in kept and value is not None else value for value in column]
        for name, column in table.items()
    }


@pytest.mark.parametrize("form", WRITERS)
@settings(
    max_examples=6,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_a_proposed_contract_publishes_what_was_written(form: str, data: st.DataObject) -> None:
    write, is_exact = WRITERS[form]
    table = data.draw(tables({**KINDS, **EXACT} if is_exact else KINDS))
    assert_same(published(write(table)), _right(table, form))


# --- options that no file can prove -----------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[bytes, Table]] = {
    "single quotes": (
        b"id,name,n\n1,'Doe, Jane',5\n2,'Roe',6\n",
        {"id": [1, 2], "name": ["Doe, Jane", "Roe"], "n": [5, 6]},
    ),
    "single quotes that nothing needs": (b"id,name\n1,'Doe'\n2,'Roe'\n", {"id": [1, 2], "name": ["Doe", "Roe"]}),
    "apostrophes that are not quotes": (
        b"id,name\n1,'tis\n2,rock 'n' roll\n",
        {"id": [1, 2], "name": ["'tis", "rock 'n' roll"]},
    ),
    "backslashes": (b'id,t\n1,"say \\"hi\\" now"\n2,x\n', {"id": [1, 2], "t": ['say "hi" now', "x"]}),
    "tildes": (b"id~name\n1~a\n2~b\n", {"id": [1, 2], "name": ["a", "b"]}),
    "two bars": (b"id||name||n\n1||a||2\n2||b||3\n", {"id": [1, 2], "name": ["a", "b"], "n": [2, 3]}),
    "delimiters at the end of rows only": (b"a,b\n1,x,\n2,y,\n", {"a": [1, 2], "b": ["x", "y"]}),
    "comments before the header": (
        b"#Device: T,serial 77\n#Units: C,%\nday,temp,hum\n2024-05-01,20.5,40\n2024-05-02,21.5,41\n",
        {"day": ["2024-05-01", "2024-05-02"], "temp": [20.5, 21.5], "hum": [40, 41]},
    ),
    "Hive's delimiter": (b"id\x01name\n1\x01a\n2\x01b\n", {"id": [1, 2], "name": ["a", "b"]}),
    "title lines": (
        b"Sales\nMay\nday,shop,n\n2024-05-01,x,1\n2024-05-02,y,2\n",
        {"day": ["2024-05-01", "2024-05-02"], "shop": ["x", "y"], "n": [1, 2]},
    ),
    "one title line over two columns": (b"Sales\nid,n\n1,2.5\n2,3.5\n", {"id": [1, 2], "n": [2.5, 3.5]}),
    "an index of pandas": (b",name,n\n0,a,1.5\n1,b,2.5\n", {"row_name": [0, 1], "name": ["a", "b"], "n": [1.5, 2.5]}),
    "an index, and numbers of which one could have a thousands separator": (
        b",name,n,m\n0,a,0.0155,2\n1,b,4.603,NA\n",
        {"row_name": [0, 1], "name": ["a", "b"], "n": [0.0155, 4.603], "m": [2, None]},
    ),
    "quotes without a meaning": (
        b'item\tnote\n5" pipe\ta "b" c\n"quoted\tok\n',
        {"item": ['5" pipe', '"quoted'], "note": ['a "b" c', "ok"]},
    ),
    "no header": (b"1001,Ann\n1002,Bob\n", {"column_1": [1001, 1002], "column_2": ["Ann", "Bob"]}),
    "row names of R": (
        b'"id","v"\n"a",10,2.5\n"b",11,3.5\n',
        {"row_name": ["a", "b"], "id": [10, 11], "v": [2.5, 3.5]},
    ),
    "American thousands separators": (
        b'a,b\nx,"1,234"\ny,12\nz,"1,000,000"\n',
        {"a": ["x", "y", "z"], "b": [1234, 12, 1000000]},
    ),
    "German thousands separators": (
        b"a;b;c\nx;2.155;0,3\ny;6;19,47\n",
        {"a": ["x", "y"], "b": [2155, 6], "c": [0.3, 19.47]},
    ),
    "French thousands separators": (
        "a;b\nx;1\u202f234,56\ny;12,50\n".encode(),
        {"a": ["x", "y"], "b": [1234.56, 12.5]},
    ),
    "a number that can be read in two ways": (b"a;b\nx;1.250\ny;3.400\n", {"a": ["x", "y"], "b": ["1.250", "3.400"]}),
    "MySQL's NULL": (b"id,n,t\n1,5,\\N\n2,\\N,x\n", {"id": [1, 2], "n": [5, None], "t": [None, "x"]}),
    "strings for missing numbers": (
        b"id,n\n1,5\n2,-\n3,#N/A\n4,n.a.\n",
        {"id": [1, 2, 3, 4], "n": [5, None, None, None]},
    ),
    "the same strings among others": (b"id,t\n1,NA\n2,-\n3,DE\n", {"id": [1, 2, 3], "t": ["NA", "-", "DE"]}),
    "an encoding": (
        "id,name\n1,Γιώργος\n2,Αθήνα\n3,Θεσσαλονίκη\n".encode("cp1253"),
        {"id": [1, 2, 3], "name": ["Γιώργος", "Αθήνα", "Θεσσαλονίκη"]},
    ),
    "records inside an object": (b'{"count": 2, "results": [{"id": 1}, {"id": 2}]}', {"id": [1, 2]}),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_no_file_proves_is_proposed(option: str) -> None:
    content, right = OPTIONS[option]
    assert_same(published(content), right)


@pytest.mark.parametrize(
    "content",
    [b"id,name\n1,a\n2,b\nid,name\n3,c\n", b"a,a\nx,1\ny,2\n", b"1,2\nx\n3\n4,5,6\n7\n"],
    ids=["the header is repeated", "two columns have the same name", "ragged"],
)
def test_no_row_is_skipped_to_make_the_others_fit(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_bytes(content)
    try:
        proposal = propose_contract(tmp_path / "sample.csv", "things")
    except FileRejected:
        return
    assert proposal.profile.found.doubt
    assert proposal.profile.found.doubt in proposal.text


def test_numbers_that_can_be_read_in_two_ways_are_strings_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_bytes(b"a;b;c\nx;1.250;t\ny;3.400;u\n")
    columns = {column.name: column for column in propose_contract(tmp_path / "sample.csv", "things").profile.columns}
    assert [columns[name].column.type for name in "abc"] == ["string"] * 3
    assert [bool(columns[name].note) for name in "abc"] == [False, True, False]


def test_a_sheet_is_proposed_if_the_first_one_is_a_cover(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "Cover"
    sheet = book.create_sheet("Data")
    for row in (["Report of May"], ["id", "v"], [1, 2.5], [2, 3.5]):
        sheet.append(row)
    book.save(tmp_path / "book.xlsx")
    assert_same(published((tmp_path / "book.xlsx").read_bytes()), {"id": [1, 2], "v": [2.5, 3.5]})


def test_a_sample_of_which_no_row_can_be_decoded_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "sample.jsonl").write_bytes(b'{"a": 1,\n{"a": 2,\n')
    with pytest.raises(FileRejected):
        propose_contract(tmp_path / "sample.jsonl", "things")


# --- the cases ----------------------------------------------------------------------------------------------------

# Values that the proposed contract publishes with another type than the default contract.
GUESSED: dict[str, Table] = {
    "separators: German, with grouped whole numbers": {"faelle": [2155, 1020, 6]},
    "parquet: decimals without a fraction": {"price": [1.5, 2.0]},
    "missing: \\N among strings": {"v": [None, "x"]},
    "missing: NA among integers beyond 2^53": {"v": ["NA", "9007199254740993"]},
}
PROVEN = [case for case in CASES if case.contract is None and case.published and not case.quarantined]


@pytest.mark.parametrize("case", PROVEN, ids=lambda case: case.title)
def test_a_proposed_contract_publishes_the_values_of_a_case(case: Case) -> None:
    assert case.published
    assert_same(published(case.content), {**case.published, **GUESSED.get(case.title, {})})
