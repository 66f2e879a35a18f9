"""What is refused in an expectation when the contract is loaded: GX itself would let most of it pass.

GX drops unknown expectation names with a log line, and takes impossible ranges and regexes that do not compile.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flows.refinery.contract.vocabulary import ExpectationType, vocabulary
from flows.refinery.suggestions import did_you_mean

_LIST_ARGUMENTS = frozenset(
    {
        "value_set",
        "column_list",
        "regex_list",
        "like_pattern_list",
        "type_list",
        "value_pairs_set",
        "column_set",
    }
)
_NUMBER_ARGUMENTS = frozenset({"mostly", "threshold", "multiplier", "sum_total"})
_FLAG_ARGUMENTS = frozenset({"strict_min", "strict_max", "exact_match", "or_equal", "strictly", "ties_okay"})
_TEXT_ARGUMENTS = frozenset(
    {"column", "column_A", "column_B", "regex", "like_pattern", "strftime_format", "row_condition"}
)


def faults_of(name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Every reason why GX could not judge by this expectation, as sentences. Nothing where it is sound."""
    kind = vocabulary().get(name)
    if kind is None:
        yield f"{name!r} is no expectation of Great Expectations{did_you_mean(name, supported_names())}"
        return
    if not kind.supported:
        yield f"{name} needs a second table or an SQL engine; a contract judges one file"
        return
    yield from _argument_name_faults(name, kind, arguments)
    for argument, value in arguments.items():
        yield from _value_faults(name, kind, argument, value)
    yield from _range_faults(name, kind, arguments)
    yield from _regex_faults(name, arguments)


def supported_names() -> list[str]:
    """The expectations that a contract may use."""
    return [name for name, kind in vocabulary().items() if kind.supported]


def columns_named(arguments: Mapping[str, Any]) -> list[str]:
    """The columns that an expectation reads, in the order in which its arguments name them."""
    single = [arguments[name] for name in ("column", "column_A", "column_B") if name in arguments]
    several = arguments.get("column_list") or []
    return [name for name in [*single, *several] if isinstance(name, str)]


def _argument_name_faults(name: str, kind: ExpectationType, arguments: Mapping[str, Any]) -> Iterator[str]:
    for argument in arguments:
        if argument not in kind.arguments:
            yield f"{name} has no argument {argument!r}{did_you_mean(argument, kind.arguments)}"
    missing = [argument for argument, rule in kind.arguments.items() if rule.required]
    for argument in missing:
        if arguments.get(argument) is None:
            yield f"{name} needs the argument {argument!r}"


def _value_faults(name: str, kind: ExpectationType, argument: str, value: Any) -> Iterator[str]:
    rule = kind.arguments.get(argument)
    if rule is None or value is None:
        return
    if rule.choices and value not in rule.choices:
        choices = ", ".join(rule.choices)
        yield f"{name}: {argument} is {value!r}{did_you_mean(str(value), rule.choices)} (possible: {choices})"
    if argument in _LIST_ARGUMENTS and not (isinstance(value, list | tuple) and value):
        yield f"{name}: {argument} is {value!r}; it is a list with at least one entry"
    if argument in _NUMBER_ARGUMENTS and not _is_number(value):
        yield f"{name}: {argument} is {value!r}; it is a number"
    if argument in _FLAG_ARGUMENTS and not isinstance(value, bool):
        yield f"{name}: {argument} is {value!r}; it is true or false"
    if argument in _TEXT_ARGUMENTS and not isinstance(value, str):
        yield f"{name}: {argument} is {value!r}; it is text (put quotes around it)"
    if argument == "mostly" and _is_number(value) and not 0 <= value <= 1:
        yield f"{name}: mostly is {value!r}; it is a fraction between 0 and 1"


def _range_faults(name: str, kind: ExpectationType, arguments: Mapping[str, Any]) -> Iterator[str]:
    if "min_value" not in kind.arguments or "partition_object" in kind.arguments:
        return
    low: Any = arguments.get("min_value")
    high: Any = arguments.get("max_value")
    if low is None and high is None:
        yield f"{name} needs min_value, max_value or both"
        return
    for argument, bound in (("min_value", low), ("max_value", high)):
        if bound is not None and not _is_bound(bound):
            yield f"{name}: {argument} is {bound!r}; it is a number or a date"
    if not (_is_bound(low) and _is_bound(high)):
        return
    try:
        reversed_range, point = low > high, low == high
    except TypeError:
        yield f"{name}: min_value {low!r} and max_value {high!r} cannot be compared; give both in one form"
        return
    if reversed_range:
        yield f"{name}: min_value {low!r} is greater than max_value {high!r}: nothing could pass"
    elif point and (arguments.get("strict_min") or arguments.get("strict_max")):
        yield f"{name}: no value is strictly between {low!r} and {high!r}"


def _regex_faults(name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    regexes = [arguments.get("regex"), *(arguments.get("regex_list") or [])]
    for regex in regexes:
        if not isinstance(regex, str):
            continue
        try:
            re.compile(regex)
        except re.error as error:
            yield f"{name}: the regex {regex!r} does not compile: {error}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_bound(value: Any) -> bool:
    return _is_number(value) or isinstance(value, str | dt.date | dt.datetime)
