"""With random tables and contracts, every row is counted and the partition size makes no difference."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, example, given, note, settings
from hypothesis import strategies as st

from flows.refinery.contract.model import Contract
from flows.refinery.refine import Refined, refine_file
from tests.unit.flows.refinery.tables import a_contract

TEXTS = ["", "a", "b", " c ", "=1+1", "007", "é", 'qu"ote', "x,y", "NaN", "2024-01-01", "tru", "12:30"]
NUMBERS = ["0", "1", "2", "-3", "4.5", "1e3", "9007199254740993", "99999999999999999999", "1,5", "inf"]
CELLS = st.sampled_from([*NUMBERS, *NUMBERS, *TEXTS])
COLUMNS = ("id", "n", "t")


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Generate CSV files, in which a few rows have a cell too many or too few."""
    columns = draw(st.sampled_from([COLUMNS, (*COLUMNS, "new"), ("id", "n")]))
    lengths = st.sampled_from([len(columns)] * 12 + [len(columns) - 1, len(columns) + 1])
    rows = draw(st.lists(lengths.flatmap(lambda n: st.lists(CELLS, min_size=n, max_size=n)), max_size=12))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


EXPECTATIONS: list[dict[str, Any]] = [
    {"expect_column_values_to_be_unique": {"column": "id"}},
    {"expect_column_values_to_not_be_null": {"column": "n", "mostly": 0.3}},
    {"expect_column_values_to_match_regex": {"column": "id", "regex": "^[0-9a]"}},
    {"expect_column_values_to_be_in_set": {"column": "t", "value_set": ["a", "b", "007"], "severity": "info"}},
    {"expect_compound_columns_to_be_unique": {"column_list": ["id", "n"]}},
    {"expect_column_unique_value_count_to_be_between": {"column": "id", "max_value": 8}},
    {"expect_table_row_count_to_be_between": {"min_value": 1}},
]
STEPS: list[Any] = [
    "clean_column_names",
    "strip_whitespace",
    {"drop_duplicates": {"subset": ["id"], "keep": "last"}},
    {"drop_missing": {"subset": ["id"]}},
    {"fill_missing": {"column": "id", "strategy": "mode"}},
    {"ordinal_encode": {"column": "id"}},
    {"train_test_split": {"key": "id", "test_size": 0.5}},
    {"cast": {"column": "id", "type": "number", "errors": "drop"}},
]
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "date", "timestamp"])
POLICIES = st.sampled_from(["evolve", "freeze", "quarantine"])


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Generate contracts for the tables that `tables` generates."""
    columns: dict[str, Any] = {"id": {"type": "string", "nullable": draw(st.booleans())}}
    if draw(st.booleans()):
        columns["n"] = {"type": draw(TYPES), "nullable": draw(st.booleans()), "required": draw(st.booleans())}
    if draw(st.booleans()):
        columns["t"] = {"type": "string", "required": draw(st.booleans())}
    expectations = [e for e in EXPECTATIONS if draw(st.booleans()) and set(_columns(e)) <= set(columns)]
    return a_contract(
        columns=columns,
        unknown_columns=draw(POLICIES),
        missing_columns=draw(POLICIES),
        expectations=expectations,
        preprocess=[step for step in STEPS if draw(st.booleans())],
        bad_rows={"max_fraction": draw(st.sampled_from([None, 0.5]))},
        output={"format": draw(st.sampled_from(["parquet", "csv"]))},
    )


def _columns(expectation: dict[str, Any]) -> list[str]:
    ((_, arguments),) = expectation.items()
    return [arguments["column"]] if "column" in arguments else list(arguments.get("column_list", []))


def _refined(content: str, contract: Contract, rows_per_partition: int) -> tuple[Refined, list[Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "upload").write_text(content, encoding="utf-8")
        refined = refine_file(folder / "upload", contract, folder, rows_per_partition=rows_per_partition)
        written = [_read(output.path, contract) for output in refined.outputs]
        quarantined = pq.read_table(refined.quarantine[0].path).to_pylist() if refined.quarantine else []
        return refined, [*written, quarantined]


def _read(path: Path, contract: Contract) -> Any:
    if contract.output.format == "csv":
        return path.read_bytes()
    table: pa.Table = pq.read_table(path)
    return table.schema.to_string(), table.to_pydict()


# Shrinking is disabled, because it would take minutes and the examples are already small.
@settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(tables(), contracts(), st.sampled_from([1, 2, 3, 5]))
def test_every_row_is_published_quarantined_or_dropped_with_any_partition_size(
    content: str, contract: Contract, rows_per_partition: int
) -> None:
    note(f"contract: {contract.model_dump_json(exclude_defaults=True)}")
    refined, files = _refined(content, contract, 1000)
    accounted = refined.rows_published + sum(refined.dropped.values())
    if not refined.rejected:
        accounted += sum(refined.quarantined.values())
    assert accounted == refined.rows_in
    if refined.quarantine:
        assert refined.quarantine[0].rows == len(files[-1]) == sum(refined.quarantined.values())

    cut, cut_files = _refined(content, contract, rows_per_partition)
    assert _comparable(cut) == _comparable(refined)
    assert repr(cut_files) == repr(files)


UNDECLARED = [
    *("", "", "5", "7", "2.0", "1.5", "-3", "1e3", "1e300", "1e400", "9007199254740993", "-9223372036854775808"),
    *("99999999999999999999", "9223372036854775808", "True", "FALSE", "maybe", "007", "+49", " 8", "inf", "1,5"),
]
JSON_VALUES = [None, 5, 2.0, 1.5, -3, 1e300, 2**53 + 1, -(2**63), 2**63, True, False, "x", "7", {"a": 1}, [1]]


@pytest.mark.heavy
@settings(max_examples=30, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(st.sampled_from(UNDECLARED), min_size=1, max_size=5), st.sampled_from([1, 2, 3]))
@example(["9007199254740993", "5", "", "7"], 2)
@example(["True", "", "FALSE", "maybe"], 2)
@example(["0.1", "1e300", "9007199254740993"], 1)
def test_undeclared_columns_of_csv_do_not_depend_on_the_partition_size(
    cells: list[str], rows_per_partition: int
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["i", "b"], *([0, cell] for cell in cells)])
    _require_the_same(text.getvalue(), rows_per_partition)


@pytest.mark.heavy
@settings(max_examples=30, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(st.sampled_from(JSON_VALUES), min_size=1, max_size=5), st.sampled_from([1, 2, 3]))
@example([2**53 + 1, 2, 1.5, 3], 2)
@example([2**53 + 1, 2.0], 1)
def test_undeclared_columns_of_json_do_not_depend_on_the_partition_size(
    values: list[Any], rows_per_partition: int
) -> None:
    _require_the_same("".join(json.dumps({"i": 0, "b": value}) + "\n" for value in values), rows_per_partition)


def _require_the_same(content: str, rows_per_partition: int) -> None:
    _, files = _refined(content, a_contract(), 1000)
    _, cut_files = _refined(content, a_contract(), rows_per_partition)
    assert repr(cut_files) == repr(files)


def _comparable(refined: Refined) -> Any:
    """Return the parts of a result that must not depend on the partition size. Observed values are left out."""
    checks = [(t.rule, t.success, t.rows_evaluated, t.rows_failing) for t in refined.checks]
    return (
        refined.rows_in,
        refined.quarantined,
        checks,
        [reason.code for reason in refined.rejected],
        refined.columns_in,
        (refined.dropped, refined.fitted, refined.columns_out),
    )


@settings(max_examples=30)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=30), st.integers(1, 7))
def test_exact_sums_do_not_depend_on_the_size_of_the_parts(values: list[float], part: int) -> None:
    from flows.refinery.validate.exact_sums import ExactMoments

    def learned(size: int) -> tuple[float, float]:
        moments = ExactMoments()
        for start in range(0, len(values), size):
            moments.add(pd.Series(values[start : start + size], dtype="float64").to_numpy())
        return moments.mean, moments.population_deviation

    assert learned(part) == learned(1000)
