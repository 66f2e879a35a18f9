"""Suggest the decimal and thousands marks to declare, from values that could not be read as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.contract.model import Column
from flows.refinery.read.partition import Partition, SourceFormat
from flows.refinery.validate.coercion import TYPE_RULES, coerce
from flows.refinery.validate.quarantine import RowRule

_LOOKED_AT = 1_000  # values per rule
_TYPES = {TYPE_RULES["integer"]: "integer", TYPE_RULES["number"]: "number"}
Texts = dict[str, None]
"""Distinct texts, in the order in which they were found."""
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
    """Return, by rule, some values in CSV that should be numbers and are not.

    Args:
        masks: rules x rows; true if the row breaks the rule.
    """
    if partition.source_format.type != "csv":
        return {}
    return {
        rule.id: dict.fromkeys(partition.frame[rule.columns[0]][mask].unique()[:_LOOKED_AT])
        for rule, mask in zip(rules, masks, strict=True)
        if _type_of(rule.id) and mask.any()
    }


def mark_hints(values: Mapping[str, Texts], found: SourceFormat) -> dict[str, str]:
    """Suggest, by rule, the marks to declare in the contract: those with which all of a rule's values are numbers.

    Args:
        values: the results of `no_numbers`.
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
        return ""  # no mark turns a word into a number
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
