"""What is refused in an expectation when the contract is loaded: GX itself would let most of it pass.

GX drops unknown expectation names with a log line, and takes impossible ranges and regexes that do not compile.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flows.refinery.contract.row_conditions import condition_fault
from flows.refinery.contract.vocabulary import UNSUPPORTED, ExpectationType, vocabulary
from flows.refinery.suggestions import did_you_mean

_LIST_ARGUMENTS = frozenset(
    {"value_set", "column_list", "regex_list", "type_list", "value_pairs_set", "column_set", "like_pattern_list"}
)
_TEXT_LISTS = frozenset({"column_list", "regex_list", "type_list", "column_set"})
_NUMBER_ARGUMENTS = frozenset({"mostly", "threshold", "multiplier", "sum_total"})
_FRACTIONS = frozenset({"mostly", "internal_weight_holdout", "tail_weight_holdout"})
_WHOLE_NUMBERS = frozenset({"value", "column_index"})
_FLAG_ARGUMENTS = frozenset(
    {
        *("strict_min", "strict_max", "exact_match", "or_equal", "strictly", "ties_okay"),
        *("double_sided", "bucketize_data", "allow_relative_error"),
    }
)
_TEXT_ARGUMENTS = frozenset(
    {
        "column",
        "column_A",
        "column_B",
        "regex",
        "like_pattern",
        "strftime_format",
        "type_",
        "ignore_row_if",
    }
)
_MAPPINGS = frozenset({"json_schema", "partition_object", "quantile_ranges"})
# Where the observed value can only lie: a range beside it is never met.
_POSSIBLE: tuple[tuple[str, float, float], ...] = (
    ("proportion", 0, 1),
    ("value_lengths", 0, math.inf),
    ("count", 0, math.inf),
    ("stdev", 0, math.inf),
    ("divergence", 0, math.inf),
)


def faults_of(name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Every reason why GX could not judge by this expectation, as sentences. Nothing where it is sound."""
    kind = vocabulary().get(name)
    if kind is None:
        yield f"{name!r} is no expectation of Great Expectations{did_you_mean(name, supported_names())}"
        return
    if name in UNSUPPORTED:
        yield f"{name} cannot be used: {UNSUPPORTED[name]}"
        return
    yield from _argument_name_faults(name, kind, arguments)
    for argument, value in arguments.items():
        yield from _value_faults(name, kind, argument, value)
    yield from _range_faults(name, kind, arguments)
    yield from _regex_faults(name, arguments)
    yield from _condition_faults(name, arguments)
    yield from _quantile_faults(name, arguments)


def supported_names() -> list[str]:
    """The expectations that a contract may use."""
    return [name for name, kind in vocabulary().items() if kind.supported]


def columns_named(arguments: Mapping[str, Any]) -> list[str]:
    """The columns that an expectation reads, in the order in which its arguments name them."""
    single = [arguments[name] for name in ("column", "column_A", "column_B") if name in arguments]
    return [name for name in [*single, *_listed(arguments.get("column_list"))] if isinstance(name, str)]


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
    if rule.choices and value not in rule.choices and argument not in _FLAG_ARGUMENTS:
        choices = ", ".join(rule.choices)
        yield f"{name}: {argument} is {value!r}{did_you_mean(str(value), rule.choices)} (possible: {choices})"
        return
    wanted = _wanted(argument, value, rule.choices)
    if wanted:
        yield f"{name}: {argument} is {value!r}; it is {wanted}"


def _wanted(argument: str, value: Any, choices: Sequence[str]) -> str:
    """What an argument is to be, where the value is something else."""
    for names, is_right, wanted in _KINDS:
        if argument in names and not is_right(value):
            more = f", or one of {', '.join(choices)}" if choices else ""
            return "" if value in choices else wanted + more
    return _wanted_in_list(argument, value) if argument in _LIST_ARGUMENTS else ""


def _wanted_in_list(argument: str, value: Any) -> str:
    if argument in _TEXT_LISTS and not all(isinstance(part, str) for part in value):
        return "a list of texts (put quotes around them)"
    if argument == "value_pairs_set" and not all(isinstance(part, list | tuple) and len(part) == 2 for part in value):
        return "a list of pairs, as [[DE, EUR], [US, USD]]"
    if argument == "column_list" and len(set(value)) < max(2, len(value)):
        return "a list of at least two different columns"
    return ""


def _is_filled_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# What arguments of these names are, by GX's own types, and in which words to say so.
_KINDS: tuple[tuple[frozenset[str], Callable[[Any], bool], str], ...] = (
    (_LIST_ARGUMENTS, _is_filled_list, "a list with at least one entry"),
    (_NUMBER_ARGUMENTS, _is_number, "a number"),
    (_FRACTIONS, _is_fraction, "a fraction between 0 and 1"),
    (frozenset({"multiplier"}), lambda value: value > 0, "greater than 0"),
    (_WHOLE_NUMBERS, _is_whole, "a whole number from 0"),
    (_FLAG_ARGUMENTS, lambda value: isinstance(value, bool), "true or false"),
    (_TEXT_ARGUMENTS, lambda value: isinstance(value, str), "text (put quotes around it)"),
    (_MAPPINGS, lambda value: isinstance(value, Mapping) and len(value) > 0, "a mapping"),
)


def _range_faults(name: str, kind: ExpectationType, arguments: Mapping[str, Any]) -> Iterator[str]:
    if "min_value" not in kind.arguments:
        return
    low: Any = arguments.get("min_value")
    high: Any = arguments.get("max_value")
    if low is None and high is None and "threshold" not in kind.arguments:
        yield f"{name} needs min_value, max_value or both"
        return
    for argument, bound in (("min_value", low), ("max_value", high)):
        if bound is not None and not _is_bound(bound):
            yield f"{name}: {argument} is {bound!r}; it is a number or a date"
        elif isinstance(bound, str) and not is_moment(bound):
            yield f"{name}: {argument} is {bound!r}; it is a number, or a date as 2024-05-01"
    yield from _impossible_range(name, arguments)
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
    for regex in [arguments.get("regex"), *_listed(arguments.get("regex_list"))]:
        if not isinstance(regex, str):
            continue
        try:
            re.compile(regex)
        except re.error as error:
            yield f"{name}: the regex {regex!r} does not compile: {error}"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _impossible_range(name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    low: Any = arguments.get("min_value")
    high: Any = arguments.get("max_value")
    for part, least, greatest in _POSSIBLE:
        if part not in name:
            continue
        for argument, bound in (("min_value", low), ("max_value", high)):
            if bound is not None and not _is_number(bound):
                yield f"{name}: {argument} is {bound!r}; it is a number"
        if _is_number(high) and high < least:
            yield f"{name}: max_value is {high!r}, and nothing is less than {least}: nothing could pass"
        if _is_number(low) and low > greatest:
            yield f"{name}: min_value is {low!r}, and nothing is greater than {greatest}: nothing could pass"
        if arguments.get("strict_max") and high == least:
            yield f"{name}: strict_max with max_value {high!r}, and nothing is less than {least}: nothing could pass"
        if arguments.get("strict_min") and low == greatest:
            yield f"{name}: strict_min with min_value {low!r}, and nothing is greater: nothing could pass"
        return


def _condition_faults(name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    condition = arguments.get("row_condition")
    fault = None if condition is None else condition_fault(condition)
    if fault:
        yield f"{name}: the row_condition {fault}"


def _quantile_faults(name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    given = arguments.get("quantile_ranges")
    if not isinstance(given, Mapping):
        return
    quantiles, ranges = _listed(given.get("quantiles")), _listed(given.get("value_ranges"))
    said = f"{name}: quantile_ranges"
    if not quantiles or not ranges or len(quantiles) != len(ranges):
        yield f"{said} needs quantiles and as many value_ranges, as {{quantiles: [0.5], value_ranges: [[1, 9]]}}"
        return
    if not all(map(_is_fraction, quantiles)):
        yield f"{said}: quantiles are {quantiles!r}; they are fractions between 0 and 1"
    for pair in ranges:
        bounds = [bound for bound in _listed(pair) if bound is not None]
        if len(_listed(pair)) != 2 or not bounds or not all(map(_is_number, bounds)) or bounds != sorted(bounds):
            yield f"{said}: value_ranges has {pair!r}; it is [least, greatest], of which one may be null"


def is_moment(text: str) -> bool:
    """Whether a text is a date or a time of day and date, in ISO 8601; not by its week, which pandas cannot read."""
    try:
        dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return "W" not in text


def _is_bound(value: Any) -> bool:
    return _is_number(value) or isinstance(value, str | dt.date | dt.datetime)
