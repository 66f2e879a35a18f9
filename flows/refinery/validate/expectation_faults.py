"""Find errors in a contract's expectations before any row is checked.

Great Expectations (GX) finds most of them. Its expectation objects reject arguments that are unknown, missing or of the
wrong type, and a check of sample rows with the contract's types shows which values cannot be compared. The code here
checks that names exist, and finds arguments that GX would silently convert, or that no file could satisfy: reversed
ranges, empty sets and invalid regexes.
"""

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import numpy as np
import pandas as pd

from flows.refinery.contract.loading import Fault
from flows.refinery.contract.model import KEEP, Column, ColumnType, Contract, Expectation
from flows.refinery.contract.row_conditions import columns_of, unreadable_texts
from flows.refinery.contract.time_formats import is_moment
from flows.refinery.suggestions import did_you_mean
from flows.refinery.validate.coercion import coerce
from flows.refinery.validate.expectations import ExpectationRaised, Judge, gx_expectation
from flows.refinery.validate.gx import gx
from flows.refinery.validate.rules import METHODS, UNSUPPORTED, Method, Rule, rules_of

# The arguments of GX's expectations that a contract cannot set. They are about identity, rendering and the batch.
_INTERNAL_ARGUMENTS = frozenset(
    {
        *("id", "meta", "notes", "description", "result_format", "catch_exceptions", "rendered_content", "windows"),
        *("batch_id", "library_metadata"),
    }
)
_MAPPINGS = frozenset({"json_schema", "partition_object", "quantile_ranges", "row_condition"})
# Parts of the names of expectations, with the range in which the observed value always is. Bounds outside are errors.
_POSSIBLE: tuple[tuple[str, float, float], ...] = (
    ("proportion", 0, 1),
    ("value_lengths", 0, math.inf),
    ("count", 0, math.inf),
    ("stdev", 0, math.inf),
    ("divergence", 0, math.inf),
)
_SAMPLES = {
    "integer": "1",
    "number": "1.5",
    "boolean": "true",
    "string": "a",
    "json": "{}",
    "timestamp": "2024-01-01",
    "date": "2024-01-01",
    "time": "08:00:00",
}


def gx_arguments(name: str) -> dict[str, Any]:
    """Return the arguments of an expectation that a contract may set, each with its field in GX's model. This imports
    GX."""
    fields: Mapping[str, Any] = gx().get_expectation_impl(name).__fields__
    return {argument: field for argument, field in fields.items() if argument not in _INTERNAL_ARGUMENTS}


def expectation_faults(contract: Contract) -> Iterator[Fault]:
    """Yield the errors in each expectation, with its position in the contract. This imports GX, which takes seconds.

    Each expectation goes through these checks until one finds errors: its name is known, the contract has its columns,
    GX accepts its arguments, some value could pass, and GX gives a verdict on sample rows.
    """
    for position, expectation in enumerate(contract.expectations):
        for question in (_name_faults, _column_faults, _argument_faults, _unsatisfiable_faults, _sample_faults):
            faults = list(question(expectation, contract))
            yield from ((("expectations", position), f"{expectation.name}: {fault}") for fault in faults)
            if faults:
                break


def _name_faults(expectation: Expectation, _: Contract) -> Iterator[str]:
    if expectation.name in UNSUPPORTED:
        yield f"it cannot be used: {UNSUPPORTED[expectation.name]}"
    elif expectation.name not in METHODS:
        yield f"not an expectation of Great Expectations{did_you_mean(expectation.name, METHODS)}"


def _column_faults(expectation: Expectation, contract: Contract) -> Iterator[str]:
    if not contract.columns or contract.unknown_columns == "evolve":
        return  # a file may have any other column
    condition = sorted(columns_of(expectation.arguments.get("row_condition")))
    for reader, columns in (("it", expectation.columns), ("its row_condition", condition)):
        for column in columns:
            if column not in contract.columns:
                close = did_you_mean(column, contract.columns)
                yield f"{reader} reads {column!r}, which is not among the contract's columns{close}"


# --- what GX rejects --------------------------------------------------------------------------------------------------


def _argument_faults(expectation: Expectation, _: Contract) -> Iterator[str]:
    fields = gx_arguments(expectation.name)
    given = {name: value for name, value in expectation.arguments.items() if name != KEEP}
    unknown = [argument for argument in given if argument not in fields]
    for argument in unknown:
        yield f"it has no argument {argument!r}{did_you_mean(argument, fields)}"
    if unknown:
        return
    try:
        accepted = gx_expectation(expectation.name, given)
    except ValueError as error:  # pydantic's ValidationError is a ValueError
        yield from _refusals(error, given)
        return
    for argument, value in given.items():
        kept = getattr(accepted, argument)
        if isinstance(value, Mapping) and argument not in _MAPPINGS:
            yield f"{argument} is {value!r}; the parameters of a GX suite have no values here"
        elif _is_another_value(value, kept) or (isinstance(value, bool) and bool not in _types_of(fields[argument])):
            yield f"{argument} is {value!r}, which Great Expectations would read as {kept!r}"


def _types_of(field: Any) -> tuple[Any, ...]:
    """Return the types that an argument may have: the members of a union, or a single type."""
    return get_args(field.outer_type_) or (field.outer_type_,)


def _refusals(error: ValueError, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield GX's validation errors, at most one for each argument. If an argument may have several types, GX reports an
    error for each of them."""
    found: list[Any] = sorted(getattr(error, "errors", list)(), key=lambda fault: -len(fault["loc"]))
    by_argument = {str(fault["loc"][0]): fault for fault in reversed(found)}
    for argument, fault in by_argument.items():
        if argument in given:
            close = did_you_mean(str(given[argument]), map(str, fault.get("ctx", {}).get("permitted", ())))
            yield f"{argument} is {given[argument]!r}: {fault['msg']}{close}"
        elif fault["type"] == "value_error.missing":
            yield f"it needs the argument {argument!r}"
        elif len(by_argument) == 1:  # an error of the whole model, which is a consequence of any other errors
            yield str(fault["msg"])


def _is_another_value(given: Any, kept: Any) -> bool:
    """Return whether GX's model silently changed a value, for example 1.5 to 1, yes to 1.0 or 5 to '5'."""
    if isinstance(given, list | tuple):
        if isinstance(kept, list | tuple):
            return any(map(_is_another_value, given, kept))
        return isinstance(kept, Mapping)
    if isinstance(given, bool) or isinstance(kept, bool):
        return given is not kept
    if isinstance(given, int | float):
        return not isinstance(kept, int | float) or given != kept
    return isinstance(given, str) and isinstance(kept, int | float)


# --- what GX accepts but no value could pass --------------------------------------------------------------------------


def _unsatisfiable_faults(expectation: Expectation, contract: Contract) -> Iterator[str]:
    arguments = _rule_of(contract, expectation.name, expectation.arguments).arguments
    yield from _list_faults(arguments)
    yield from _range_faults(expectation.name, arguments)
    yield from _regex_faults(arguments)
    for text in unreadable_texts(arguments.get("row_condition")):
        yield f"the row_condition {text!r} cannot be parsed; write for example 'country == \"DE\"'"
    yield from _type_faults(expectation, contract)


def _rule_of(contract: Contract, name: str, arguments: Mapping[str, Any]) -> Rule:
    """Return an expectation as a rule with the arguments that GX gets, in which dates are timestamps."""
    expectation = Expectation(name=name, arguments=dict(arguments))
    return rules_of(contract.model_copy(update={"expectations": (expectation,)}))[0]


def _list_faults(arguments: Mapping[str, Any]) -> Iterator[str]:
    for argument, value in arguments.items():
        if argument != "json_schema" and _holds_an_empty_list(value):
            yield f"{argument} is {value!r}; a list in it needs at least one entry"
    columns = list(map(repr, _listed(arguments.get("column_list"))))
    if len(set(columns)) < len(columns):
        yield f"column_list names a column twice: {', '.join(columns)}"
    for argument in ("column_list", "column_set"):
        if not all(map(_is_text, _listed(arguments.get(argument)))):
            yield f"{argument} is {arguments[argument]!r}; column names must be text (put quotes around them)"


def _holds_an_empty_list(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_an_empty_list, value.values()))
    return isinstance(value, list | tuple) and (not value or any(map(_holds_an_empty_list, value)))


def _range_faults(name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    for argument in ("value", "column_index"):
        number: Any = arguments.get(argument)
        if _is_number(number) and (number < 0 or number % 1):
            yield f"{argument} is {number!r}; it must be 0 or a positive integer"
    low, high = arguments.get("min_value"), arguments.get("max_value")
    for part, least, greatest in _POSSIBLE:
        if part in name:
            not_numbers = [bound for bound in (low, high) if bound is not None and not _is_number(bound)]
            yield from (f"{bound!r} is not a number, as the {part} is" for bound in not_numbers)
            yield from _impossible_bounds(low, high, least, greatest, arguments)
            break
    yield from _reversed_bounds(low, high, arguments)
    for pair in _listed((arguments.get("quantile_ranges") or {}).get("value_ranges")):
        bounds = [bound for bound in _listed(pair) if bound is not None]
        if len(_listed(pair)) != 2 or bounds != sorted(bounds):
            yield f"quantile_ranges: value_ranges has {pair!r}; write [minimum, maximum], either of which may be null"


def _impossible_bounds(
    low: Any, high: Any, least: float, greatest: float, arguments: Mapping[str, Any]
) -> Iterator[str]:
    if _is_number(high) and (high < least or (high == least and arguments.get("strict_max"))):
        yield f"max_value is {high!r}, and nothing is below {least}: nothing could pass"
    if _is_number(low) and (low > greatest or (low == greatest and arguments.get("strict_min"))):
        yield f"min_value is {low!r}, and nothing is above {greatest}: nothing could pass"


def _reversed_bounds(low: Any, high: Any, arguments: Mapping[str, Any]) -> Iterator[str]:
    if low is None or high is None:
        return
    try:
        is_reversed = low > high
    except TypeError:
        yield f"min_value {_shown(low)} and max_value {_shown(high)} cannot be compared; write both in the same form"
        return
    if is_reversed:
        yield f"min_value {_shown(low)} is greater than max_value {_shown(high)}: nothing could pass"
    elif low == high and (arguments.get("strict_min") or arguments.get("strict_max")):
        yield f"no value is strictly between {_shown(low)} and {_shown(high)}"


def _shown(bound: Any) -> str:
    return str(bound) if isinstance(bound, dt.date) else repr(bound)


def _regex_faults(arguments: Mapping[str, Any]) -> Iterator[str]:
    for regex in [arguments.get("regex"), *_listed(arguments.get("regex_list"))]:
        try:
            re.compile(regex or "")
        except re.error as error:
            yield f"the regex {regex!r} does not compile: {error}"


def _type_faults(expectation: Expectation, contract: Contract) -> Iterator[str]:
    """Yield an error for each comparison that GX accepts but that can never match: with values of the wrong type in a
    value_set, or with a sum of strings."""
    for column in filter(contract.columns.__contains__, expectation.columns):
        column_type = contract.columns[column].type
        is_of_type, wanted = _IS_OF.get(column_type, (_is_text, "text: put quotes around it"))
        for value in _listed(expectation.arguments.get("value_set")):
            if value is not None and not is_of_type(value):
                yield f"value_set has {value!r}, and the column {column!r} is of type {column_type}; write {wanted}"
        if expectation.name == "expect_multicolumn_sum_to_equal" and column_type in ("string", "time", "json"):
            yield f"the column {column!r} is of type {column_type}, and a sum needs numbers"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)  # true and false count as 1 and 0, as they do in GX


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_time(value: Any) -> bool:
    return isinstance(value, dt.date) or (isinstance(value, str) and is_moment(value))


_IS_OF: dict[str, tuple[Callable[[Any], bool], str]] = {
    "integer": (_is_number, "a number"),
    "number": (_is_number, "a number"),
    "boolean": (_is_number, "true or false"),
    "timestamp": (_is_time, "a timestamp, for example 2024-05-01 08:00"),
    "date": (_is_time, "a date, for example 2024-05-01"),
}


# --- a sample row -----------------------------------------------------------------------------------------------------


def _sample_faults(expectation: Expectation, contract: Contract) -> Iterator[str]:
    """Check sample rows with the contract's types. If GX cannot give a verdict on them, it cannot give one on any
    file."""
    if not set(expectation.columns) <= set(contract.columns):
        return  # the types of the other columns are known only when a file arrives
    arguments = dict(expectation.arguments)
    if not columns_of(arguments.get("row_condition")) <= set(contract.columns):
        del arguments["row_condition"]
    rule = _rule_of(contract, expectation.name, arguments)
    needed = rule.columns_needed(list(contract.columns))
    frame = pd.DataFrame({name: _sample(contract.columns[name].type) for name in needed}, index=pd.RangeIndex(2))
    judge = Judge([rule])
    try:
        if rule.method is Method.WHOLE:
            judge.judge_entire(0, frame)
        else:
            judge.verdict(0, judge.judge(frame, np.array([1, 2]))[0].state, frame.head(0))
    except ExpectationRaised as error:
        types = ", ".join(f"{column!r} of type {contract.columns[column].type}" for column in rule.columns)
        cause = error.cause_type.__name__ if error.cause_type else "error"
        yield f"its arguments do not fit {types or 'any file'}: Great Expectations raises {cause} and gives no verdict"


def _sample(column_type: ColumnType) -> pd.Series:
    """Return two sample values of a type. With a single value, GX cannot compute a standard deviation of dates."""
    return coerce(pd.Series([_SAMPLES[column_type]] * 2), Column(type=column_type)).values
