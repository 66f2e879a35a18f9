"""Check that a value in a step's arguments has the type of the column to which the step applies it.

YAML 1.1 reads NO and on as booleans, and 2024-01-02 as a date. Without this check, such a value would match nothing in
a text column, or would be published there as False, True or a date.
"""

import datetime as dt
from typing import Any

import pandas as pd

from flows.refinery.contract.model import Column
from flows.refinery.contract.time_formats import is_moment
from flows.refinery.preprocess.step_base import is_number, is_text
from flows.refinery.validate.coercion import coerce


def misfit(value: Any, values: pd.Series) -> str:
    """Describe the values that would fit a column, such as "a number", for use in a message. Return "" if `value`
    fits."""
    dtype = values.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return "" if isinstance(value, bool) else "true or false"
    if pd.api.types.is_numeric_dtype(dtype):
        return "" if is_number(value) else "a number"
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "" if _is_moment(value) else "a timestamp, such as 2024-05-01 08:00"
    if pd.api.types.is_datetime64_dtype(dtype):
        return "" if _is_moment(value) and _is_day(value) else "a date, such as 2024-05-01"
    if is_text(values) and not isinstance(value, str):
        flag = "; YAML reads yes, no, on and off as true and false" if isinstance(value, bool) else ""
        return f"text (put quotes around it{flag})"
    return ""


def moment_of(value: Any, values: pd.Series) -> pd.Timestamp:
    """Convert a date or timestamp from a step's arguments to the form of a column's values. If the column has a time
    zone, the result is in UTC. Raise ValueError or TypeError if the value is not a date or timestamp."""
    if not isinstance(value, str | dt.date):
        raise TypeError("not a date")
    moment = pd.Timestamp(value)
    if not isinstance(values.dtype, pd.DatetimeTZDtype):
        return moment
    return moment.tz_convert("UTC") if moment.tzinfo else moment.tz_localize("UTC")


def format_fault(column: Column) -> str:
    """Return an error message if pandas cannot parse strings with a column's format, or "" if it can."""
    try:
        coerce(pd.Series(["x"], dtype="str"), column)
    except Exception as error:  # noqa: BLE001 pandas does not document what it raises here
        return f"format {column.format!r} cannot be used: {type(error).__name__}: {error}"
    return ""


def _is_moment(value: Any) -> bool:
    if not isinstance(value, dt.date) and not (isinstance(value, str) and is_moment(value)):
        return False
    try:
        pd.Timestamp(value)
    except ValueError:  # a variant of ISO 8601 that pandas does not support
        return False
    return True


def _is_day(value: Any) -> bool:
    moment = pd.Timestamp(value)
    return moment.tzinfo is None and moment == moment.normalize()
