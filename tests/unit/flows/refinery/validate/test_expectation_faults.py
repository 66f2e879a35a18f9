"""The check of expectations accepts what GX can evaluate on a file, and rejects what would raise an error there."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.refinery.check_contract import check_contract
from flows.refinery.contract.loading import load_contract
from flows.refinery.refine import refine_file
from flows.refinery.validate.expectation_faults import expectation_faults, gx_arguments
from flows.refinery.validate.gx import gx
from flows.refinery.validate.rules import METHODS, UNSUPPORTED, Method, level_of
from tests.unit.flows.refinery.tables import a_contract
from tests.unit.flows.refinery.validate.test_expectations_parity import CASES, KINDS
from tests.unit.flows.refinery.wrong_contracts import write_contract

SAMPLES = {"integer": "1", "number": "1.5", "boolean": "true", "string": "a", "json": '{""a"": 1}'}
SAMPLES.update({"timestamp": "2024-01-01", "date": "2024-01-01", "time": "08:00:00"})
SOUND: dict[str, Any] = {
    "column": "a",
    "column_A": "a",
    "column_B": "b",
    "column_list": ["a", "b"],
    "column_set": ["a"],
    "value_set": ["x"],
    "value_pairs_set": [["x", "y"]],
    "regex": "x",
    "regex_list": ["x"],
    "type_": "str",
    "type_list": ["str"],
    "value": 3,
    "sum_total": 3,
    "threshold": 3,
    "double_sided": True,
    "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]},
    "json_schema": {"type": "object"},
    "strftime_format": "%Y",
    "min_value": 0,
    "max_value": 5,
}
ODD = [5, -1, 1.5, "x", True, [], [1], {"a": 1}]
USUAL = ("min_value", "max_value", "regex", "column_list", "column_set", "type_list")


def sound_arguments(name: str) -> dict[str, Any]:
    """Return valid arguments for an expectation, as far as that is possible without knowing the column's type."""
    fields = gx_arguments(name)
    return {key: value for key, value in SOUND.items() if key in fields and (fields[key].required or key in USUAL)}


def odd_arguments(name: str) -> Iterator[dict[str, Any]]:
    """Yield variants of the valid arguments, in each of which one argument is replaced by an unusual value."""
    for argument in gx_arguments(name):
        for value in ODD if argument not in ("column", "column_A", "column_B", "severity") else ():
            yield {**sound_arguments(name), argument: value}


def test_every_expectation_of_the_installed_gx_is_supported_or_listed_with_a_reason() -> None:
    assert set(gx().list_registered_expectation_implementations()) == set(METHODS) | set(UNSUPPORTED)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_expectation_judges_rows_if_and_only_if_it_does_so_in_gx(name: str) -> None:
    if name in ("expect_column_values_to_be_in_type_list", "expect_column_values_to_be_of_type"):
        assert level_of(name) == "table"  # in GX, they judge the rows of a column only if its values have several types
        return
    bases = {base.__name__ for base in gx().get_expectation_impl(name).__mro__}
    counts_rows = bool(bases & {"ColumnMapExpectation", "ColumnPairMapExpectation", "MulticolumnMapExpectation"})
    assert (level_of(name) == "row") is counts_rows


def test_no_expectation_that_gx_can_evaluate_is_rejected() -> None:
    assert list(expectation_faults(a_contract(columns=KINDS, expectations=CASES))) == []


JUDGES_VALUES = sorted(name for name, method in METHODS.items() if method is not Method.STRUCTURE)


def judge_what_is_accepted(folder: Path, kind: str, candidates: list[dict[str, Any]]) -> int:
    """Refine a file with those of the candidate expectations that the check accepts, and return their number.

    Args:
        folder: where the file is written.
        kind: the type of the file's columns, a and b.
        candidates: expectations as in contract.yaml.
    """
    (folder / "upload").write_text("a,b\n" + f'"{SAMPLES[kind]}","{SAMPLES[kind]}"\n' * 3)
    fields = {"columns": {"a": kind, "b": kind}, "unknown_columns": "freeze"}
    refused = {place[1] for place, _ in expectation_faults(a_contract(**fields, expectations=candidates))}
    accepted = [
        {name: {**arguments, "severity": "info"}}
        for place, candidate in enumerate(candidates)
        for name, arguments in candidate.items()
        if place not in refused
    ]
    refine_file(folder / "upload", a_contract(**fields, expectations=accepted), folder)
    return len(accepted)


@pytest.mark.parametrize("kind", SAMPLES)
def test_an_accepted_expectation_gives_a_verdict_on_a_column_of_any_type(kind: str, tmp_path: Path) -> None:
    candidates = []
    for name in JUDGES_VALUES:
        arguments = sound_arguments(name)
        candidates.append({name: arguments})
        if "min_value" in arguments:
            unbounded = {key: value for key, value in arguments.items() if key != "max_value"}
            candidates.append({name: {**unbounded, "min_value": "2024-01-01"}})
    assert judge_what_is_accepted(tmp_path, kind, candidates) > 15


def test_an_accepted_expectation_gives_a_verdict_with_any_arguments(tmp_path: Path) -> None:
    candidates = [{name: arguments} for name in JUDGES_VALUES for arguments in odd_arguments(name)]
    assert judge_what_is_accepted(tmp_path, "integer", candidates) > 60


def test_a_suite_that_gx_wrote_judges_the_rows_that_its_conditions_leave(tmp_path: Path) -> None:
    gx()
    installed: Any = importlib.import_module("great_expectations")
    column: Any = importlib.import_module("great_expectations.expectations.row_conditions").Column
    a, n = column("a"), column("n")
    conditions = [a == "DE", (a.is_in(["DE", "FR"]) & (n > 1)) | n.is_null(), n.is_not_null(), 'a == "FR"']
    not_null = installed.expectations.ExpectColumnValuesToNotBeNull
    parsers: list[dict[str, str]] = [{}, {}, {}, {"condition_parser": "pandas"}]
    suite = installed.ExpectationSuite(
        name="s",
        expectations=[
            not_null(column="n", row_condition=condition, **parser)
            for condition, parser in zip(conditions, parsers, strict=True)
        ],
    )
    folder = write_contract(
        tmp_path,
        "dataset: orders\ncolumns: {a: string, n: integer}\nunknown_columns: freeze\nsuite: suite.json\n",
        suite__json=json.dumps(suite.to_json_dict()),
    )
    (tmp_path / "upload.csv").write_text("a,n\nDE,1\nDE,\nFR,2\nFR,3\nUS,1\n")
    contract = load_contract(folder)
    check_contract(contract)
    refined = refine_file(tmp_path / "upload.csv", contract, tmp_path)
    assert not refined.rejected
    assert [check.rows_failing for check in refined.checks if check.rule.startswith("expect_")] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "condition",
    [
        "id == 'a' and ok",
        "`id` == 'a'",
        "id.str.startswith('a')",
        "col(\"id\") == 'a'",
        "abs(n) > 1",
        "n in [1, 2]",
        "index > 2",
        {"type": "pass_through", "pass_through_filter": "n > 1"},
    ],
)
def test_a_condition_on_columns_of_the_contract_is_accepted(condition: Any) -> None:
    parser = "great_expectations" if "col(" in condition else "pandas"
    arguments = {"column": "n", "row_condition": condition, "condition_parser": parser}
    contract = a_contract(
        columns={"id": "string", "n": "integer", "ok": "boolean"},
        unknown_columns="freeze",
        expectations=[{"expect_column_values_to_not_be_null": arguments}],
    )
    assert list(expectation_faults(contract)) == []
