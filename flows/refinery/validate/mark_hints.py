"""Finds the decimal and thousands marks that a contract should declare, from the values that were no numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from flows.refinery.contract.model import Column
from flows.refinery.read.partition import SourceFormat
from flows.refinery.validate.coercion import TYPE_RULES, coerce
from flows.refinery.validate.quarantine import RULES, VALUES

_ROWS = 1_000  # of the quarantine that are looked at
_MARKS: tuple[dict[str, Any], ...] = (
    {"thousands": ","},
    {"decimal": ","},
    {"thousands": "."},
    {"thousands": " "},
    {"thousands": "'"},
    {"decimal": ",", "thousands": "."},
    {"decimal": ",", "thousands": " "},
)


def mark_hints(quarantine: Path, rules: Collection[str], found: SourceFormat) -> dict[str, str]:
    """Return, by rule, the lines to write into the contract where they make numbers of all values that were none.

    Args:
        quarantine: the bad rows (Parquet, see quarantine.py).
        rules: that rows broke.
        found: how the file was read.
    """
    types = {rule: kind for rule in rules for kind in ("integer", "number") if rule.startswith(f"{TYPE_RULES[kind]}(")}
    if found.type != "csv" or not types:
        return {}
    values: defaultdict[str, dict[str, None]] = defaultdict(dict)
    with pq.ParquetFile(quarantine) as file:
        rows = next(file.iter_batches(_ROWS, columns=[RULES, VALUES])).to_pylist()
    for row in rows:
        for rule, value in zip(row[RULES], row[VALUES], strict=True):
            if rule in types:
                values[rule][value] = None
    return {
        rule: hint for rule, texts in values.items() if (hint := _hint(list(texts), Column(type=types[rule]), found))
    }


def _hint(texts: list[str], column: Column, found: SourceFormat) -> str:
    if not all(any(sign.isdigit() for sign in text) for text in texts):
        return ""  # no mark makes a number of a word
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
