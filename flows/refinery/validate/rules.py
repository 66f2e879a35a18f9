"""A contract's expectations as rules, and the method by which each expectation is checked on a file that is read in
partitions."""

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.contract.model import KEEP, UNIQUE, Column, Contract, Expectation
from flows.refinery.validate.moments import read_time, time_text

WHOLE_FILE_ROW_LIMIT = 10_000_000  # a column with this many numbers takes 80 MB


class Method(Enum):
    """The ways to check an expectation on a file that is read in partitions."""

    ROWS = "each row is checked by itself, and the counts are added up"
    ORDER = "each row is compared with the row before it, which may be in the partition before"
    UNIQUE = (
        "64-bit hashes of all rows are sorted, and rows with equal hashes are compared by value; every occurrence"
        " fails, or with `keep` every occurrence except the first or the last in the file"
    )
    MERGED = "each partition gives a state, and the merged state gives the same metric as the whole file"
    DISTINCT = "each partition gives its distinct values, and GX checks their union (at most 1,000,000 values)"
    STRUCTURE = "GX checks the file's column names and types"
    WHOLE = f"GX checks the whole columns that the expectation reads (at most {WHOLE_FILE_ROW_LIMIT:,} rows)"


_NAMES_BY_METHOD = {
    Method.ROWS: (
        "expect_column_pair_values_a_to_be_greater_than_b",
        "expect_column_pair_values_to_be_equal",
        "expect_column_pair_values_to_be_in_set",
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_dateutil_parseable",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_be_json_parseable",
        "expect_column_values_to_be_null",
        "expect_column_values_to_match_json_schema",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_match_regex_list",
        "expect_column_values_to_match_strftime_format",
        "expect_column_values_to_not_be_in_set",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_not_match_regex",
        "expect_column_values_to_not_match_regex_list",
        "expect_multicolumn_sum_to_equal",
        "expect_multicolumn_values_to_be_equal",
        "expect_select_column_values_to_be_unique_within_record",
    ),
    Method.ORDER: (
        "expect_column_values_to_be_decreasing",
        "expect_column_values_to_be_increasing",
    ),
    Method.UNIQUE: UNIQUE,
    Method.MERGED: (
        "expect_column_max_to_be_between",
        "expect_column_mean_to_be_between",
        "expect_column_min_to_be_between",
        "expect_column_most_common_value_to_be_in_set",
        "expect_column_proportion_of_non_null_values_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_stdev_to_be_between",
        "expect_column_sum_to_be_between",
        "expect_column_unique_value_count_to_be_between",
        "expect_table_row_count_to_be_between",
        "expect_table_row_count_to_equal",
    ),
    Method.DISTINCT: (
        "expect_column_distinct_values_to_be_in_set",
        "expect_column_distinct_values_to_contain_set",
        "expect_column_distinct_values_to_equal_set",
    ),
    Method.STRUCTURE: (
        "expect_column_to_exist",
        "expect_column_type_to_be",
        "expect_column_values_to_be_in_type_list",
        "expect_column_values_to_be_of_type",
        "expect_table_column_count_to_be_between",
        "expect_table_column_count_to_equal",
        "expect_table_columns_to_match_ordered_list",
        "expect_table_columns_to_match_set",
    ),
    Method.WHOLE: (
        "expect_column_kl_divergence_to_be_less_than",
        "expect_column_median_to_be_between",
        "expect_column_quantile_values_to_be_between",
        "expect_column_value_z_scores_to_be_less_than",
        "expect_column_values_to_not_be_outliers",
    ),
}
METHODS: Mapping[str, Method] = MappingProxyType(
    {name: method for method, names in _NAMES_BY_METHOD.items() for name in names}
)

_NO_PANDAS = "Great Expectations has it for SQL engines only; use expect_column_values_to_{}match_regex"
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "expect_column_values_to_match_like_pattern": _NO_PANDAS.format(""),
        "expect_column_values_to_match_like_pattern_list": _NO_PANDAS.format("") + "_list",
        "expect_column_values_to_not_match_like_pattern": _NO_PANDAS.format("not_"),
        "expect_column_values_to_not_match_like_pattern_list": _NO_PANDAS.format("not_") + "_list",
        "expect_query_results_to_match_comparison": "it needs an SQL engine, but a contract checks a single file",
        "expect_table_row_count_to_equal_other_table": "it needs a second table, but a contract checks a single file",
        "unexpected_rows_expectation": "it needs an SQL engine, but a contract checks a single file",
    }
)
"""The expectations of the installed GX that a contract cannot use, with the reason."""

# Expectations that are checked on the whole file, but count failing rows, too.
_COUNT_ROWS = frozenset(
    {
        "expect_column_value_z_scores_to_be_less_than",
        "expect_column_values_to_not_be_outliers",
    }
)


def level_of(name: str) -> Literal["row", "table"]:
    """Return "row" if an expectation counts failing rows, and "table" if it only checks the file as a whole."""
    counts_rows = METHODS[name] in (Method.ROWS, Method.ORDER, Method.UNIQUE) or name in _COUNT_ROWS
    return "row" if counts_rows else "table"


@dataclass(frozen=True)
class Rule:
    """An expectation in a contract."""

    id: str  # stable and unique in the contract, such as "expect_column_values_to_not_be_null(order_id)"
    name: str  # GX's name for the expectation
    arguments: Mapping[str, Any]  # the arguments for GX
    severity: str  # info (only counted), warning or critical (its failure rejects the file)
    level: str  # "row" if single rows fail, "table" if only the whole file does
    columns: tuple[str, ...]  # the columns that it reads
    mostly: float = 1.0  # the fraction of rows that must pass
    written: Mapping[str, Any] = field(default_factory=dict, compare=False)  # the arguments in the contract

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @property
    def keep(self) -> Literal["first", "last", False]:
        """Return which of the rows with the same key passes a uniqueness rule, or False if none of them does."""
        keep = self.written.get(KEEP)
        return "first" if keep == "first" else "last" if keep == "last" else False

    @property
    def may_quarantine(self) -> bool:
        """Return whether a row that breaks the rule is quarantined."""
        return self.level == "row" and self.severity != "info"

    @property
    def is_late(self) -> bool:
        """Return whether the rule may find bad rows only at the end of the file. Every rule on whole columns counts as
        such a rule."""
        return self.method in (Method.UNIQUE, Method.WHOLE, Method.ORDER)

    def columns_needed(self, available: list[str]) -> list[str]:
        """Return the columns in `available` that GX needs to check the rule, including those in its row_condition."""
        condition = self.arguments.get("row_condition")
        text = repr(condition) if condition else ""
        # A missing column would make GX fail, but an extra one only costs time. So it is enough that the condition
        # mentions the column's name anywhere.
        return [column for column in available if column in self.columns or (text and column in text)]

    def columns_missing(self, in_file: Collection[str], judged: Collection[str]) -> list[str]:
        """Return the columns that the rule needs but that do not exist.

        Args:
            in_file: the columns of the file.
            judged: the columns of the file that are checked, and the columns that are filled in.
        """
        if self.name == "expect_column_to_exist":
            return []
        # A column that is filled in has no type in the file.
        asks_type = self.method is Method.STRUCTURE and "column" in self.arguments
        return [column for column in self.columns if column not in (in_file if asks_type else judged)]


def rules_of(contract: Contract) -> tuple[Rule, ...]:
    """Return the contract's expectations as rules with unique IDs, in their order. Raise ContractInvalid if an
    expectation cannot be checked on a file."""
    seen: Counter[str] = Counter()
    return tuple(_rule(contract, expectation, seen) for expectation in contract.expectations)


def _rule(contract: Contract, expectation: Expectation, seen: Counter[str]) -> Rule:
    name = expectation.name
    if name not in METHODS:
        why = UNSUPPORTED.get(name, "this release cannot check it in partitions")
        raise ContractInvalid(f"contract {contract.dataset!r}: {name} cannot be used: {why}")
    columns = tuple(expectation.columns)
    rule_id = f"{name}({', '.join(columns)})" if columns else name
    seen[rule_id] += 1
    if seen[rule_id] > 1:
        rule_id = f"{rule_id}#{seen[rule_id]}"
    types = {contract.columns[column].type for column in columns if column in contract.columns}
    return Rule(
        id=rule_id,
        name=name,
        arguments=_for_gx(expectation.arguments, types),
        severity=expectation.severity,
        level=level_of(name),
        columns=columns,
        mostly=float(expectation.arguments.get("mostly", 1.0)),
        written=expectation.arguments,
    )


def _for_gx(arguments: Mapping[str, Any], types: Collection[str]) -> dict[str, Any]:
    """Return the arguments for GX. Timestamps and times are converted to their form in the frames that GX checks:
    timestamps in UTC without a time zone, and times as strings such as 08:00:00. `types` are those of the rule's
    columns."""
    given = {name: value for name, value in arguments.items() if name != KEEP}
    return {name: _as_judged(value, types) if name in _MOMENTS else value for name, value in given.items()}


_MOMENTS = ("min_value", "max_value", "value_set")


def _as_judged(value: Any, types: Collection[str]) -> Any:
    if isinstance(value, list | tuple):
        return [_as_judged(part, types) for part in value]
    if isinstance(value, dt.date) or (isinstance(value, str) and not {"timestamp", "date"}.isdisjoint(types)):
        try:
            moment = pd.Timestamp(value)
        except ValueError:
            return value
        if moment.tzinfo is not None:
            moment = moment.tz_convert("UTC").tz_localize(None)
        return moment.to_pydatetime()
    if isinstance(value, str) and "time" in types:
        return time_text(read_time(pd.Series([value], dtype="str"), Column(type="time")))[0].as_py() or value
    return value
