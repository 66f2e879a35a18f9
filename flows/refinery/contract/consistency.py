"""What one part of a contract says of another: expectations are held against the types of the columns that they read.

GX compares unlike things row by row and then raises, or lets every row fail, when the first file comes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from flows.refinery.contract.expectation_faults import is_moment
from flows.refinery.contract.model import Contract, Expectation
from flows.refinery.contract.row_conditions import columns_of
from flows.refinery.suggestions import did_you_mean

Place = tuple[int | str, ...]

_NUMERIC = ("integer", "number")
_MOMENTS = ("timestamp", "date")
_COMPARES_VALUES = frozenset(
    {
        "expect_column_max_to_be_between",
        "expect_column_mean_to_be_between",
        "expect_column_median_to_be_between",
        "expect_column_min_to_be_between",
        "expect_column_sum_to_be_between",
        "expect_column_values_to_be_between",
    }
)
_NEEDS: tuple[tuple[frozenset[str], frozenset[str], str], ...] = (
    (
        frozenset(
            {
                "expect_column_mean_to_be_between",
                "expect_column_quantile_values_to_be_between",
                "expect_column_stdev_to_be_between",
                "expect_column_sum_to_be_between",
                "expect_multicolumn_sum_to_equal",
            }
        ),
        frozenset({*_NUMERIC, "boolean"}),
        "numbers",
    ),
    (
        frozenset(
            {
                "expect_column_max_to_be_between",
                "expect_column_median_to_be_between",
                "expect_column_min_to_be_between",
                "expect_column_values_to_be_between",
                "expect_column_value_z_scores_to_be_less_than",
                "expect_column_values_to_be_decreasing",
                "expect_column_values_to_be_increasing",
            }
        ),
        frozenset({*_NUMERIC, *_MOMENTS, "boolean"}),
        "numbers, dates or timestamps",
    ),
    (
        frozenset(
            {
                "expect_column_values_to_be_dateutil_parseable",
                "expect_column_values_to_match_strftime_format",
            }
        ),
        frozenset({"string", "time", "json"}),
        "text; the type itself says what is a date",
    ),
    (frozenset({"expect_column_values_to_not_be_outliers"}), frozenset(_NUMERIC), "numbers"),
    (frozenset({"expect_column_values_to_match_json_schema"}), frozenset({"json"}), "the type json"),
)
"""Expectations, the types of columns that GX can judge by them, and how to say so."""

_AS_TYPE = {
    "integer": "a number",
    "number": "a number",
    "boolean": "true or false",
    "timestamp": "a moment, as 2024-05-01 08:00",
    "date": "a date, as 2024-05-01",
}


def inconsistencies(contract: Contract) -> Iterator[tuple[Place, str]]:
    """Every expectation that cannot judge the columns that it names, with its place in the contract."""
    kinds = {name: column.type for name, column in contract.columns.items()}
    has_others = not kinds or contract.unknown_columns == "evolve"
    for position, expectation in enumerate(contract.expectations):
        unknown = [] if has_others else [column for column in expectation.columns if column not in kinds]
        for column in unknown:
            said = f"it reads the column {column!r}, which is not among the contract's columns"
            yield ("expectations", position), f"{expectation.name}: {said}{did_you_mean(column, kinds)}"
        condition = () if has_others else sorted(columns_of(expectation.arguments.get("row_condition")) - set(kinds))
        for column in condition:
            said = f"its row_condition reads {column!r}, which is not among the contract's columns"
            yield ("expectations", position), f"{expectation.name}: {said}{did_you_mean(column, kinds)}"
        for fault in _faults(expectation, kinds):
            yield ("expectations", position), f"{expectation.name}: {fault}"


def _faults(expectation: Expectation, kinds: Mapping[str, str]) -> Iterator[str]:
    for column in expectation.columns:
        kind = kinds.get(column)
        if kind is None:
            continue
        what = f"the column {column!r} is a {kind}"
        needs = [needed for names, right, needed in _NEEDS if expectation.name in names and kind not in right]
        if needs:
            yield f"{what}, and this needs {needs[0]}"
            continue
        for argument, value in _compared(expectation):
            if not _is_of(kind, value):
                expected = _AS_TYPE.get(kind, "text: put quotes around it")
                yield f"{what}, and {argument} {value!r} cannot be compared with it; it is {expected}"


def _compared(expectation: Expectation) -> Iterator[tuple[str, Any]]:
    """The arguments that are compared with single values of the column."""
    arguments = expectation.arguments
    if expectation.name in _COMPARES_VALUES:
        yield from ((name, arguments[name]) for name in ("min_value", "max_value") if arguments.get(name) is not None)
    value_set = arguments.get("value_set")
    if isinstance(value_set, list | tuple):
        yield from (("value_set", value) for value in value_set if value is not None)


def _is_of(kind: str, value: Any) -> bool:
    if kind in (*_NUMERIC, "boolean"):
        return isinstance(value, int | float)  # true and false are 1 and 0 to GX as well
    if kind in _MOMENTS:
        return isinstance(value, dt.date) or (isinstance(value, str) and is_moment(value))
    return isinstance(value, str)
