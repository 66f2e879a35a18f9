"""Suggest which decimal and thousands separators to declare in the contract, from values that could not be read as
numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.contract.model import Column
from flows.refinery.read.partition import Partition, SourceFormat
from flows.refinery.validate.coercion import TYPE_RULES, coerce
from flows.refinery.validate.quarantine import RowRule

_LOOKED_AT = 1_000  # how many values are examined for each rule
_TYPES = {TYPE_RULES["integer"]: "integer", TYPE_RULES["number"]: "number"}
Texts = dict[str, None]
"""Distinct strings, in the order in which they were found. All values are None."""
_MARKS: tuple[dict[str, Any], ...] = (
    {"thousands": ","},
    {"decimal": ","},
    {"thousands": "."},
    {"thousands": " "},
    {"thousands": "'"},
    {"decimal": ",", "thousands": "."},
    {"decimal": ",", "thousands": " "},
)


def no_numbers(partition: Partition, rules: Sequence[RowRule], masks: np.ndarray) -> dict[str, Texts]:
    """Return some of a CSV partition's values that should be numbers but could not be read as numbers, by the ID of the
    rule that they break.

    Args:
        masks: an array of shape (rules, rows), which is true where a row breaks a rule.
    """
    if partition.source_format.type != "csv":
        return {}
    return {
        rule.id: dict.fromkeys(partition.frame[rule.columns[0]].array[mask].unique()[:_LOOKED_AT])
        for rule, mask in zip(rules, masks, strict=True)
        if _type_of(rule.id) and mask.any()
    }


def mark_hints(values: Mapping[str, Texts], found: SourceFormat) -> dict[str, str]:
    """Return suggestions for the contract, by the ID of a rule. They name the separators with which all of the rule's
    values in `values` can be read as numbers.

    Args:
        values: the merged results of `no_numbers` for all partitions.
        found: how the file was read.
    """
    return {
        rule: hint
        for rule, texts in values.items()
        if (hint := _hint(list(texts)[:_LOOKED_AT], Column(type=_type_of(rule)), found))
    }


def _type_of(rule: str) -> Any:
    return _TYPES.get(rule.partition("(")[0])


def _hint(texts: list[str], column: Column, found: SourceFormat) -> str:
    if not all(any(sign.isdigit() for sign in text) for text in texts):
        return ""  # no separator turns a word into a number
    lines: list[dict[str, Any]] = []
    for marks in _MARKS:
        form = replace(found, **marks)
        is_new = (
            form != found
            and form.decimal != form.thousands
            and not any(line.items() <= marks.items() for line in lines)
        )
        if is_new and not coerce(pd.Series(texts, dtype="str"), column, form).unreadable.any():
            lines.append(marks)
    written = [" and ".join(f'`{option}: "{mark}"`' for option, mark in line.items()) for line in lines]
    return f"write {' or '.join(written)} under `format`" if written else ""
