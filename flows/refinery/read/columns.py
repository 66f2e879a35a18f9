"""Python values of typed formats (JSON, XLSX) to columns of a frame, without changing a value."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

_EXACT_FLOAT = 2**53  # from here on not every integer is a float64


def frame_of(columns: dict[str, list[Any]], missing: dict[str, frozenset[str]]) -> pd.DataFrame:
    """A frame of equally long lists of values, where None is missing.

    A column of one kind gets that kind's fast type. A mixed column keeps its values under dtype object. Objects and
    arrays become their JSON text.

    Args:
        missing: for each column the texts that mean missing.
    """
    return pd.DataFrame({name: series_of(values, missing.get(name, frozenset())) for name, values in columns.items()})


def series_of(values: Sequence[Any], missing: frozenset[str]) -> pd.Series[Any]:
    """One column; see `frame_of`."""
    kinds = set(map(type, values))
    if dict in kinds or list in kinds:
        values = [_as_json(value) for value in values]
        kinds = set(map(type, values))
    if missing and str in kinds:
        values = [None if isinstance(value, str) and value in missing else value for value in values]
        kinds = set(map(type, values))
    some_missing = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {str}:
        return pd.Series(list(values), dtype="str")
    if kinds == {bool} and not some_missing:
        return pd.Series(np.array(values, dtype=bool))
    if kinds and kinds <= {int, float}:
        return _numbers(values, kinds, some_missing)
    if kinds == {dt.datetime}:
        return _timestamps(values)
    if not kinds:
        return pd.Series(np.full(len(values), np.nan))
    return pd.Series(list(values), dtype=object)


def _numbers(values: Sequence[Any], kinds: set[type], some_missing: bool) -> pd.Series[Any]:
    exact = pd.Series(list(values), dtype=object)
    if kinds == {int} and not some_missing:
        try:
            return pd.Series(np.array(values, dtype=np.int64))
        except OverflowError:
            return exact
    if any(type(value) is int and abs(value) >= _EXACT_FLOAT for value in values):
        return exact
    return pd.Series(np.array([np.nan if value is None else value for value in values], dtype=np.float64))


def _timestamps(values: Sequence[Any]) -> pd.Series[Any]:
    exact = pd.Series(list(values), dtype=object)
    try:
        return pd.Series(pd.to_datetime(exact))
    except (ValueError, TypeError, OverflowError):
        return exact


def _as_json(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
