"""Propose expectations from the profile of a sample file: keys, sets, ranges and patterns."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.refinery.propose.meanings import meaning_of
from flows.refinery.propose.profiling import ColumnProfile, FileProfile
from flows.refinery.words import EXACT_FLOAT, as_python, counted, shown

MAX_SET_VALUES = 20
_MIN_ROWS_PER_SET_VALUE = 3
_MAX_SET_TEXT = 60  # characters
_MIN_ROWS_FOR_UNIQUE = 5
_MIN_ROWS_FOR_UNIQUE_NAMES = 500  # in fewer rows, first names may all differ by coincidence
_TINY = 1e-9
_KEY_NAME = re.compile(r"(?i)(^|[^a-z])(id|key|uuid|guid|code|sku|isbn|no|nr|number)$|[a-z](Id|ID|Key|Code)$")


@dataclass(frozen=True)
class ProposedExpectation:
    """One proposed expectation, with a comment that gives the evidence for it."""

    name: str
    arguments: Mapping[str, Any]
    comment: str

    @property
    def rule(self) -> str:
        """Return the ID of the expectation's rule, as it appears in `Check.rule`."""
        columns = [self.arguments["column"]] if "column" in self.arguments else self.arguments.get("column_list", [])
        return f"{self.name}({', '.join(columns)})" if columns else self.name


def expectations_of(profile: FileProfile) -> Iterator[ProposedExpectation]:
    """Yield the expectations that a sample suggests."""
    rows = counted(profile.rows, "row")
    if profile.rows:
        name, arguments = "expect_table_row_count_to_be_between", {"min_value": 1, "severity": "critical"}
        yield ProposedExpectation(name, arguments, f"saw {rows}")
    for place, column in enumerate(profile.columns):
        yield from _uniqueness(column, is_first=place == 0)
        yield from _meant_range(column) or _set_or_range(column)
        if column.regex and column.column.type == "string" and not _is_set(column):
            regex, what = column.regex
            arguments = {"column": column.name, "regex": regex}
            yield ProposedExpectation("expect_column_values_to_match_regex", arguments, f"saw {what}")

    if profile.key:
        arguments = {"column_list": list(profile.key)}
        yield ProposedExpectation(
            "expect_compound_columns_to_be_unique", arguments, f"saw {rows}, all different in these columns"
        )


def _uniqueness(column: ColumnProfile, *, is_first: bool) -> Iterator[ProposedExpectation]:
    """Propose uniqueness for a column that looks like a key by its name or position. In other columns, distinct values
    are mostly a coincidence."""
    is_no_name = (
        column.column.type == "integer" or column.regex is not None or column.rows >= _MIN_ROWS_FOR_UNIQUE_NAMES
    )
    may_be_key = (is_first and is_no_name) or _KEY_NAME.search(column.name) is not None
    if may_be_key and _is_unique(column) and not column.missing and column.column.type in ("string", "integer"):
        name = "expect_column_values_to_be_unique"
        yield ProposedExpectation(name, {"column": column.name}, f"saw {column.rows:,} different values")


def _meant_range(column: ColumnProfile) -> list[ProposedExpectation]:
    if column.column.type not in ("integer", "number") or column.low is None:
        return []
    meaning = meaning_of(column.name, float(column.low), float(column.high), may_be_clock=column.may_be_clock)
    if meaning is None:
        return []
    return [_between(column, (meaning.low, meaning.high), f": {meaning.what}")]


def _between(column: ColumnProfile, bounds: tuple[float, float], why: str = "") -> ProposedExpectation:
    arguments = {"column": column.name, "min_value": bounds[0], "max_value": bounds[1]}
    comment = f"saw {shown(column.low)} to {shown(column.high)}{why}"
    return ProposedExpectation("expect_column_values_to_be_between", arguments, comment)


def _set_or_range(column: ColumnProfile) -> Iterator[ProposedExpectation]:
    if _is_set(column) and column.values:
        values = sorted(value for value, _ in column.values)
        counts = ", ".join(f"{value} {counted(count, 'time')}" for value, count in column.values[:5])
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        arguments = {"column": column.name, "value_set": [as_python(value) for value in values]}
        yield ProposedExpectation("expect_column_values_to_be_in_set", arguments, f"saw {counts}{more}")
        return
    if column.column.type not in ("integer", "number") or column.low == column.high:
        return
    if _is_unique(column) and _KEY_NAME.search(column.name):
        return  # for identifiers, a range is meaningless
    bounds = wider(float(column.low), float(column.high), whole=column.column.type == "integer")
    if bounds:
        yield _between(column, bounds)


def _is_unique(column: ColumnProfile) -> bool:
    return column.is_unique and column.rows >= _MIN_ROWS_FOR_UNIQUE


def _is_set(column: ColumnProfile) -> bool:
    """Return whether a column has a small set of recurring values. Integers count only if they look like flags or
    grades. A single value does not count, because it may differ in the next file, like a date or the name of a shop."""
    if not column.values or len(column.values) == 1:
        return False
    seen = column.rows - column.missing
    distinct = [value for value, _ in column.values]
    if column.column.type == "string":
        short = all(len(str(value)) <= _MAX_SET_TEXT for value in distinct)
        return short and len(distinct) <= MAX_SET_VALUES and seen >= _MIN_ROWS_PER_SET_VALUE * len(distinct)
    if column.column.type == "integer":
        small = len(distinct) <= 3 and all(-1 <= value <= 5 for value in distinct)
        return small and seen >= 2 * _MIN_ROWS_PER_SET_VALUE * len(distinct)
    return False


def wider(low: float, high: float, *, whole: bool) -> tuple[float, float] | None:
    """Return rounded bounds that extend the range from `low` to `high` by at least a tenth on each side, but not beyond
    zero, and not below 1 if whole numbers begin at 1. Fractions between 0 and 1 get the bounds 0 and 1. Return None if
    the numbers are too large or too close together for useful rounding."""
    spread = high - low or abs(high)
    if max(abs(low), abs(high)) >= EXACT_FLOAT or 0 < spread < _TINY:
        return None
    if not whole and low >= 0 and high <= 1:
        return 0, 1
    unit = 10.0 ** math.floor(math.log10(spread)) / 2 if spread else 1.0
    unit = max(unit, 1.0) if whole else unit
    bottom = round(math.floor((low - spread / 10) / unit) * unit, 12)
    top = round(math.ceil((high + spread / 10) / unit) * unit, 12)
    bottom = max(bottom, 0.0) if low >= 0 else bottom
    top = min(top, 0.0) if high <= 0 else top
    if whole and low == 1:
        bottom = 1.0
    if not (bottom <= low <= high <= top):
        return None
    return (int(bottom), int(top)) if float(bottom).is_integer() and float(top).is_integer() else (bottom, top)
