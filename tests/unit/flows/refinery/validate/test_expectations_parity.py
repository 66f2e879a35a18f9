"""Every supported expectation gives the result of unmodified Great Expectations, no matter how rows are partitioned."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.refinery.checks import Check
from flows.refinery.refine import Refined, refine_file
from flows.refinery.validate.checks_of_rules import json_value
from flows.refinery.validate.coercion import to_arrow
from flows.refinery.validate.gx import gx
from flows.refinery.validate.rules import METHODS, Method, rules_of
from tests.unit.flows.refinery.tables import a_contract

KINDS = {
    "id": "string",
    "code": "string",
    "size": "integer",
    "gap": "integer",
    "price": "number",
    "paid": "number",
    "flat": "number",
    "void": "number",
    "day": "timestamp",
    "flag": "boolean",
    "json": "json",
    "rank": "integer",
}

CASES: list[dict[str, Any]] = [
    {"expect_column_distinct_values_to_be_in_set": {"column": "code", "value_set": ["a", "b"]}},
    {"expect_column_distinct_values_to_be_in_set": {"column": "gap", "value_set": [1, 2, 3, 4, 5]}},
    {"expect_column_distinct_values_to_contain_set": {"column": "code", "value_set": ["a", "b"]}},
    {"expect_column_distinct_values_to_contain_set": {"column": "gap", "value_set": [1, 99]}},
    {"expect_column_distinct_values_to_equal_set": {"column": "code", "value_set": ["a", "b", "c", "d"]}},
    {
        "expect_column_kl_divergence_to_be_less_than": {
            "column": "code",
            "partition_object": {"values": ["a", "b", "c", "d"], "weights": [0.4, 0.3, 0.2, 0.1]},
            "threshold": 0.1,
        }
    },
    {"expect_column_max_to_be_between": {"column": "price", "max_value": 50}},
    {"expect_column_max_to_be_between": {"column": "day", "max_value": "2024-02-01T00:00:00"}},
    {"expect_column_max_to_be_between": {"column": "void", "max_value": 1}},
    {"expect_column_mean_to_be_between": {"column": "price", "min_value": 40, "max_value": 60}},
    {"expect_column_mean_to_be_between": {"column": "gap", "max_value": 1}},
    {"expect_column_mean_to_be_between": {"column": "void", "max_value": 1}},
    {"expect_column_median_to_be_between": {"column": "price", "max_value": 50}},
    {"expect_column_median_to_be_between": {"column": "gap", "max_value": 3}},
    {"expect_column_min_to_be_between": {"column": "gap", "min_value": 1}},
    {"expect_column_min_to_be_between": {"column": "price", "min_value": 0, "strict_min": True}},
    {"expect_column_most_common_value_to_be_in_set": {"column": "code", "value_set": ["a"]}},
    {"expect_column_most_common_value_to_be_in_set": {"column": "gap", "value_set": [1], "ties_okay": True}},
    {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "price", "column_B": "paid"}},
    {
        "expect_column_pair_values_a_to_be_greater_than_b": {
            "column_A": "price",
            "column_B": "paid",
            "or_equal": True,
            "ignore_row_if": "either_value_is_missing",
            "mostly": 0.5,
        }
    },
    {"expect_column_pair_values_to_be_equal": {"column_A": "price", "column_B": "paid", "ignore_row_if": "neither"}},
    {
        "expect_column_pair_values_to_be_in_set": {
            "column_A": "code",
            "column_B": "size",
            "value_pairs_set": [["a", 1], ["b", 2], ["c", 3]],
        }
    },
    {"expect_column_proportion_of_non_null_values_to_be_between": {"column": "gap", "min_value": 0.7}},
    {"expect_column_proportion_of_non_null_values_to_be_between": {"column": "void", "min_value": 0.1}},
    {"expect_column_proportion_of_unique_values_to_be_between": {"column": "id", "min_value": 0.9}},
    {"expect_column_proportion_of_unique_values_to_be_between": {"column": "gap", "max_value": 0.1}},
    {
        "expect_column_quantile_values_to_be_between": {
            "column": "price",
            "quantile_ranges": {"quantiles": [0.1, 0.5, 0.9], "value_ranges": [[0, 20], [40, 60], [80, 85]]},
        }
    },
    {"expect_column_stdev_to_be_between": {"column": "price", "max_value": 30}},
    {"expect_column_stdev_to_be_between": {"column": "flat", "max_value": 0}},
    {"expect_column_sum_to_be_between": {"column": "price", "max_value": 1}},
    {"expect_column_sum_to_be_between": {"column": "gap", "min_value": 1}},
    {"expect_column_to_exist": {"column": "code", "column_index": 1}},
    {"expect_column_to_exist": {"column": "nowhere"}},
    {"expect_column_type_to_be": {"column": "price", "type_": "float64"}},
    {"expect_column_unique_value_count_to_be_between": {"column": "gap", "min_value": 5, "max_value": 5}},
    {"expect_column_unique_value_count_to_be_between": {"column": "code", "max_value": 3}},
    {"expect_column_value_lengths_to_be_between": {"column": "id", "min_value": 2, "max_value": 3}},
    {"expect_column_value_lengths_to_equal": {"column": "id", "value": 3, "mostly": 0.2}},
    {"expect_column_value_z_scores_to_be_less_than": {"column": "price", "threshold": 1.5, "double_sided": True}},
    {"expect_column_values_to_be_between": {"column": "price", "min_value": 5, "max_value": 95, "mostly": 0.95}},
    {"expect_column_values_to_be_between": {"column": "gap", "min_value": 1, "max_value": 4, "strict_min": True}},
    {"expect_column_values_to_be_between": {"column": "day", "min_value": "2024-01-10T00:00:00"}},
    {"expect_column_values_to_be_between": {"column": "void", "min_value": 0}},
    {"expect_column_values_to_be_dateutil_parseable": {"column": "id"}},
    {"expect_column_values_to_be_decreasing": {"column": "rank"}},
    {"expect_column_values_to_be_decreasing": {"column": "rank", "strictly": True, "mostly": 0.5}},
    {"expect_column_values_to_be_in_set": {"column": "code", "value_set": ["a", "b"]}},
    {"expect_column_values_to_be_in_set": {"column": "gap", "value_set": [1, 2]}},
    {"expect_column_values_to_be_in_type_list": {"column": "price", "type_list": ["float64", "float32"]}},
    {"expect_column_values_to_be_in_type_list": {"column": "price", "type_list": ["int64"]}},
    {"expect_column_values_to_be_increasing": {"column": "day"}},
    {"expect_column_values_to_be_increasing": {"column": "gap"}},
    {"expect_column_values_to_be_increasing": {"column": "size", "strictly": True}},
    {"expect_column_values_to_be_json_parseable": {"column": "id"}},
    {"expect_column_values_to_be_null": {"column": "gap"}},
    {"expect_column_values_to_be_null": {"column": "void"}},
    {"expect_column_values_to_be_of_type": {"column": "size", "type_": "int64"}},
    {"expect_column_values_to_be_of_type": {"column": "code", "type_": "str"}},
    {"expect_column_values_to_be_unique": {"column": "id"}},
    {"expect_column_values_to_be_unique": {"column": "gap", "mostly": 0.1}},
    {
        "expect_column_values_to_be_unique": {
            "column": "price",
            "row_condition": "size == 1",
            "condition_parser": "pandas",
        }
    },
    {"expect_column_values_to_match_json_schema": {"column": "json", "json_schema": {"type": "object"}}},
    {"expect_column_values_to_match_regex": {"column": "id", "regex": "^K[0-4]"}},
    {"expect_column_values_to_match_regex": {"column": "size", "regex": "^[123]$"}},
    {"expect_column_values_to_match_regex_list": {"column": "id", "regex_list": ["^K1", "7$"], "match_on": "all"}},
    {"expect_column_values_to_match_strftime_format": {"column": "id", "strftime_format": "K%d"}},
    {"expect_column_values_to_not_be_in_set": {"column": "code", "value_set": ["d"]}},
    {"expect_column_values_to_not_be_null": {"column": "gap"}},
    {"expect_column_values_to_not_be_null": {"column": "void", "mostly": 0.5}},
    {
        "expect_column_values_to_not_be_null": {
            "column": "gap",
            "row_condition": 'code == "a"',
            "condition_parser": "pandas",
        }
    },
    {"expect_column_values_to_not_be_outliers": {"column": "price", "method": "iqr", "multiplier": 0.2}},
    {"expect_column_values_to_not_match_regex": {"column": "id", "regex": "7$"}},
    {"expect_column_values_to_not_match_regex_list": {"column": "id", "regex_list": ["^K1", "7$"]}},
    {"expect_compound_columns_to_be_unique": {"column_list": ["code", "gap"]}},
    {"expect_compound_columns_to_be_unique": {"column_list": ["code", "gap"], "ignore_row_if": "any_value_is_missing"}},
    {"expect_multicolumn_sum_to_equal": {"column_list": ["size", "gap"], "sum_total": 5}},
    {"expect_multicolumn_values_to_be_equal": {"column_list": ["size", "gap"]}},
    {"expect_select_column_values_to_be_unique_within_record": {"column_list": ["size", "gap"]}},
    {"expect_table_column_count_to_be_between": {"min_value": 2, "max_value": 3}},
    {"expect_table_column_count_to_equal": {"value": 12}},
    {"expect_table_columns_to_match_ordered_list": {"column_list": list(KINDS)}},
    {"expect_table_columns_to_match_set": {"column_set": ["id", "code"], "exact_match": False}},
    {"expect_table_row_count_to_be_between": {"min_value": 1, "max_value": 10}},
    {"expect_table_row_count_to_equal": {"value": 60}},
]


def a_table(rows: int = 60) -> pd.DataFrame:
    """Return rows with ties, missing values, duplicates far apart, a constant column and a column without values."""
    random = np.random.default_rng(7)
    place = np.arange(rows)
    gap = pd.array(np.where(place % 4 == 3, 0, place % 5 + 1), dtype="Int64")
    gap[place % 4 == 3] = pd.NA
    price = np.round(random.uniform(0, 100, rows), 1)
    paid = np.where(place % 3 == 0, price, np.round(random.uniform(0, 100, rows), 1))
    price[[5, 17]], paid[[5, 20]] = np.nan, np.nan
    price[40] = price[2]
    return pd.DataFrame(
        {
            "id": pd.array([f"K{n % (rows - 2)}" for n in place], dtype="str"),
            "code": pd.array([None if n % 11 == 10 else "aabcabcd"[n % 8] for n in place], dtype="str"),
            "size": place % 4 + 1,
            "gap": gap,
            "price": price,
            "paid": paid,
            "flat": np.full(rows, 2.5),
            "void": np.full(rows, np.nan),
            "day": (pd.Timestamp("2024-01-01") + pd.to_timedelta(place % 50, unit="D")).astype("datetime64[us]"),
            "flag": place % 2 == 0,
            "json": pd.array(['{"a": 1}' if n % 6 else "[1]" for n in place], dtype="str"),
            "rank": (rows - place) // 2 * 2 + (place % 13 == 0),
        }
    )


def as_pandas_reads_it() -> pd.DataFrame:
    """Return the table with nullable integers as floats, because GX cannot add or compare columns that have pd.NA."""
    return a_table().astype({"gap": "float64"})


@pytest.fixture(scope="module")
def stock() -> list[dict[str, Any]]:
    """Return the result of GX's `Batch.validate` for each case, on all rows together."""
    names = gx()
    import great_expectations

    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("stock").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": as_pandas_reads_it()})
    results = []
    rules = rules_of(a_contract(columns=KINDS, expectations=CASES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for rule in rules:
            configuration = names.ExpectationConfiguration(type=rule.name, kwargs=dict(rule.arguments))
            expectation = configuration.to_domain_obj()
            result = batch.validate(expectation, result_format="BASIC")
            assert not result.exception_info.get("raised_exception", True), (rule.id, result.exception_info)
            results.append({"success": bool(result.success), **result.result})
    return results


@pytest.fixture(scope="module", params=[1000, 30, 7, 2], ids=lambda rows: f"{rows} rows a partition")
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Refined:
    """Refine the same rows with every expectation at severity info, so that none of them rejects the file."""
    informative = [{name: {**arguments, "severity": "info"}} for case in CASES for name, arguments in case.items()]
    return _refined(tmp_path_factory.mktemp("parity"), informative, request.param)


def _refined(folder: Path, expectations: list[dict[str, Any]], rows_per_partition: int) -> Refined:
    frame = a_table()
    table = pa.table({name: to_arrow(frame[name], kind) for name, kind in KINDS.items()})
    pq.write_table(table, folder / "rows.parquet", row_group_size=rows_per_partition)
    contract = a_contract(columns=KINDS, expectations=expectations)
    return refine_file(folder / "rows.parquet", contract, folder, rows_per_partition=rows_per_partition)


def test_every_supported_expectation_is_compared_with_stock_gx() -> None:
    assert {name for case in CASES for name in case} == set(METHODS)


def test_verdicts_counts_and_observed_values_are_those_of_stock_gx(ours: Refined, stock: list[dict[str, Any]]) -> None:
    assert [check.expectation for check in ours.checks] == [name for case in CASES for name in case]
    pairs = zip(ours.checks, stock, strict=True)
    assert [(check, expected) for check, expected in pairs if not _agree(check, expected)] == []


def test_an_expectation_that_fails_quarantines_rows_or_rejects_the_file_and_no_other_rejects_it(
    tmp_path: Path, stock: list[dict[str, Any]]
) -> None:
    wrong = []
    for number, (case, result) in enumerate(zip(CASES, stock, strict=True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        refined = _refined(folder, [case], 30)
        has_effect = bool(refined.rejected or refined.quarantined)
        if bool(refined.rejected) if result["success"] else not has_effect:
            wrong.append(case)
    assert wrong == []


def _agree(check: Check, expected: dict[str, Any]) -> bool:
    if check.success is not expected["success"]:
        return False
    if check.rows_failing is None:
        return "unexpected_count" in expected or _same(check.observed, json_value(expected.get("observed_value")))
    evaluated = expected["element_count"] - (0 if _looks_at_missing(check) else expected.get("missing_count", 0))
    return (check.rows_failing, check.rows_evaluated) == (expected["unexpected_count"], evaluated)


def _looks_at_missing(check: Check) -> bool:
    return check.expectation in ("expect_column_values_to_be_null", "expect_column_values_to_not_be_null")


def _same(one: Any, other: Any) -> bool:
    """Return whether two results are equal, floats to 12 digits, because partial sums are rounded differently."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-12)
    return bool(one == other)


def test_the_cases_contain_failing_rows_duplicates_and_both_verdicts(
    stock: list[dict[str, Any]], ours: Refined
) -> None:
    failing = {check.rule: check.rows_failing for check in ours.checks if check.rows_failing}
    assert failing, "the cases above would prove nothing if no row failed"
    assert any(METHODS[check.expectation] is Method.UNIQUE and check.rows_failing for check in ours.checks)
    assert {result["success"] for result in stock} == {True, False}
