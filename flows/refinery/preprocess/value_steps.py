"""Built-in steps that change single values: they fill missing values, clip numbers, map old values to new ones, and
convert values to other types."""

from __future__ import annotations

import datetime as dt
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PrivateAttr, model_validator

from flows.refinery.contract.model import Column
from flows.refinery.contract.time_formats import TimeFormat, TimeZone
from flows.refinery.preprocess.argument_types import format_fault, misfit, moment_of
from flows.refinery.preprocess.step_base import (
    Finite,
    Fitted,
    FittedStep,
    OnColumns,
    StepFailed,
    fits_in_64_bits,
    is_number,
    is_scalar,
    is_text,
    python_value,
    with_columns,
)
from flows.refinery.validate.coercion import coerce
from flows.refinery.validate.exact_sums import ExactMoments

_DTYPES = {"boolean": "boolean", "integer": "Int64", "number": "float64", "text": "str"}


class FillMissing(FittedStep):
    """Fills missing values with `value`, or with the column's mean, median or mode (`strategy`)."""

    name = "fill_missing"
    value: str | int | float | bool | dt.date | dt.datetime | None = None
    strategy: Literal["mean", "median", "mode"] | None = None
    _states: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _value_or_strategy(self) -> FillMissing:
        if (self.value is None) == (self.strategy is None):
            raise ValueError("give either value or strategy (mean, median, mode)")
        _require_finite("value", self.value)
        return self

    def wanted_instead(self, known: Any) -> str:
        return "" if known is None or is_scalar(known) else "a single value, with which to fill the column"

    @property
    def is_fitted(self) -> bool:
        return self.value is not None or self.fitted is not None

    def learn(self, frame: pd.DataFrame) -> None:
        self.require(frame, self.targets)
        for name in self.targets:
            values = frame[name].dropna()
            if self.strategy == "mean":
                self._states.setdefault(name, ExactMoments(deviation=False)).add(self.numbers(name, values).to_numpy())
            elif self.strategy == "median":
                self._states.setdefault(name, []).append(self.numbers(name, values).to_numpy())
            else:
                counts = values.value_counts(sort=False)
                before = self._states.get(name)
                both = counts if before is None else pd.concat([before, counts]).groupby(level=0, sort=False).sum()
                self._states[name] = both

    def learned(self) -> Fitted:
        return {name: self._filling(self._states.get(name)) for name in self.targets}

    def _filling(self, state: Any) -> Any:
        if self.strategy == "mean":
            return state.mean if state is not None and state.count else None
        if self.strategy == "median":
            values = np.concatenate(state) if state else np.empty(0)
            return float(np.median(values)) if len(values) else None
        if state is None or state.empty:
            return None
        return python_value(state[state == state.max()].sort_index().index[0])  # in a tie, the smallest, as in pandas

    def kinds_after(self, kinds: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
        del columns
        for name in self.targets:
            filling = self._given(name)
            if kinds.get(name) == "time" and filling is not None and not _is_time(filling):
                raise StepFailed(
                    f"step {self.label}: {filling!r} does not fit into the column {name!r};"
                    " it should be a time, such as 08:00:00 (put quotes around it)"
                )
        return dict(kinds)

    def _given(self, name: str) -> Any:
        return self.value if self.value is not None else (self.fitted or {}).get(name)

    def misfits(self, name: str, values: pd.Series) -> Iterator[str]:
        filling = self._given(name)
        wanted = "" if filling is None else misfit(filling, values)
        if wanted:
            yield f"{filling!r} does not fit into the column {name!r}; it should be {wanted}"

    def change(self, name: str, values: pd.Series) -> pd.Series:
        filling = self.value if self.value is not None else self.of(name)
        if filling is None:
            return values
        whole = pd.api.types.is_integer_dtype(values.dtype)
        if whole and isinstance(filling, int) and not fits_in_64_bits(filling):
            raise StepFailed(f"step {self.label}: {filling} does not fit into the 64 bits of the column {name!r}")
        if whole and isinstance(filling, float):
            values = values.astype("float64")  # in every partition, even if it has nothing to fill
        try:
            return values.fillna(_fitting(values, filling))
        except (TypeError, ValueError):
            raise StepFailed(
                f"step {self.label}: {type(filling).__name__} does not fit into the column {name!r} ({values.dtype})"
            ) from None


class Clip(OnColumns):
    """Replaces numbers below `lower` with `lower`, and numbers above `upper` with `upper`."""

    name = "clip"
    lower: Finite | None = None
    upper: Finite | None = None

    @model_validator(mode="after")
    def _has_a_range(self) -> Clip:
        if self.lower is None and self.upper is None:
            raise ValueError("give lower, upper or both")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower {self.lower} is greater than upper {self.upper}")
        return self

    def change(self, name: str, values: pd.Series) -> pd.Series:
        bounds = [bound for bound in (self.lower, self.upper) if bound is not None]
        whole = pd.api.types.is_integer_dtype(values.dtype) and all(float(bound).is_integer() for bound in bounds)
        outside = [bound for bound in bounds if whole and not fits_in_64_bits(bound)]
        if outside:
            raise StepFailed(
                f"step {self.label}: {outside[0]} does not fit into the 64 bits of the column {name!r};"
                " leave out a bound that no value can reach"
            )
        if not whole:
            return self.numbers(name, values).clip(self.lower, self.upper)
        lower, upper = (None if bound is None else int(bound) for bound in (self.lower, self.upper))
        return values.clip(lower, upper)


class MapValues(OnColumns):
    """Replaces values; `mapping` maps each old value to its new value. A value that is not in the mapping becomes
    `default` if that is given. Otherwise `unmapped` decides: the value stays (`keep`), becomes missing (`missing`), or
    Sluice rejects the file (`fail`)."""

    name = "map_values"
    mapping: Annotated[dict[Any, Any], Field(min_length=1)]
    default: str | int | float | bool | None = None
    unmapped: Literal["keep", "missing", "fail"] = "keep"

    @model_validator(mode="after")
    def _default_or_unmapped(self) -> MapValues:
        if self.default is not None and "unmapped" in self.model_fields_set:
            raise ValueError("give either default or unmapped")
        _require_finite("default", self.default)
        for old, new in self.mapping.items():
            if new is not None and not is_scalar(new) and not isinstance(new, dt.date):
                raise ValueError(
                    f"mapping: {old!r} becomes {new!r}; it should be a string, a number, a boolean, a date or null"
                )
        return self

    def change(self, name: str, values: pd.Series) -> pd.Series:
        mapping = self._mapping_for(values)
        codes, distinct = pd.factorize(values)
        old = [python_value(value) for value in distinct]
        known = np.array([value in mapping for value in old] + [True])  # the last is for missing values
        if self.unmapped == "fail" and not known.all():
            rows = values.index[~known[codes]]
            raise self.fail_at(rows, f"a value of the column {name!r} is not in the mapping")
        keep = self._keeps
        new = [mapping.get(value, value if keep else self.default) for value in old]
        dtype = self._dtype(values if keep else None)
        texts = [None if value is None else str(value) for value in new] if dtype == "str" else new
        outcomes = pd.Series([*texts, None], dtype=object)
        return as_dtype(outcomes, dtype).take(codes).set_axis(values.index)

    def misfits(self, name: str, values: pd.Series) -> Iterator[str]:
        for key in self.mapping:
            wanted = misfit(key, values)
            if wanted:
                yield f"the mapped value {key!r} cannot occur in the column {name!r}; it should be {wanted}"
        kinds = self._kinds(values if self._keeps else None)
        if "boolean" in kinds and len(kinds) > 1:
            others = " and ".join(sorted(kinds - {"boolean"}))
            yield (
                f"the column {name!r} would hold true and false together with {others}"
                " (put quotes around yes, no, on and off where they are text;"
                " with `unmapped: missing` no old value stays among the new ones)"
            )

    def _mapping_for(self, values: pd.Series) -> Mapping[Any, Any]:
        """Return the mapping with its keys converted to the form of the column's values, because a date can be written
        in several ways in YAML."""
        if not pd.api.types.is_datetime64_any_dtype(values.dtype):
            return self.mapping
        dates = {key: new for key, new in self.mapping.items() if not misfit(key, values)}
        return {python_value(moment_of(key, values)): new for key, new in dates.items()}

    @property
    def _keeps(self) -> bool:
        return self.unmapped == "keep" and self.default is None

    def _kinds(self, kept: pd.Series | None) -> set[str]:
        outcomes = [*self.mapping.values(), *([] if self.default is None else [self.default])]
        kinds = {_kind_of(value) for value in outcomes if value is not None}
        return kinds if kept is None else kinds | {_kind_of_dtype(kept)}

    def _dtype(self, kept: pd.Series | None) -> str:
        """Return the dtype of the new column. It depends on the arguments and on the dtype of `kept`, the column whose
        unmapped values stay, but not on its values, so that all partitions get the same dtype."""
        kinds = self._kinds(kept)
        if len(kinds) == 1:
            return _DTYPES[kinds.pop()]
        return "float64" if kinds == {"integer", "number"} else "str"


_MIDNIGHT = " 00:00:00"


class _Reading(OnColumns):
    """The base class of steps that convert values to another type. If a value cannot be converted, Sluice rejects the
    file, or drops only that row if the step has `errors: drop`."""

    errors: Literal["fail", "drop"] = "fail"

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.targets)
        keep = np.ones(len(frame), dtype=bool)
        columns = {}
        for name in self.targets:
            columns[name], unreadable = self.read(frame[name])
            if unreadable.any() and self.errors == "fail":
                raise self.fail_at(frame.index[unreadable], f"a value of the column {name!r} cannot be read")
            keep &= ~unreadable
        changed = with_columns(frame, columns)
        return changed if keep.all() else changed[keep]

    @abstractmethod
    def read(self, values: pd.Series) -> tuple[pd.Series, np.ndarray]:
        """Return the converted values, and a mask that is true for each value that cannot be converted."""


class ParseDates(_Reading):
    """Parses strings as timestamps and converts them to UTC; `format` consists of strftime codes, and the default is
    ISO 8601."""

    name = "parse_dates"
    format: TimeFormat | None = None
    timezone: TimeZone | None = None

    @model_validator(mode="after")
    def _pandas_can_read_the_format(self) -> ParseDates:
        fault = (
            format_fault(Column(type="timestamp", format=self.format, timezone=self.timezone)) if self.format else ""
        )
        if fault:
            raise ValueError(fault)
        return self

    def read(self, values: pd.Series) -> tuple[pd.Series, np.ndarray]:
        column = Column(type="timestamp", format=self.format, timezone=self.timezone)
        coerced = coerce(values, column)
        moments = coerced.values.set_axis(values.index).dt.tz_localize("UTC")
        return moments, coerced.unreadable


class Cast(_Reading):
    """Converts values to the type string, integer, number or boolean; a date becomes a string such as 2024-05-01."""

    name = "cast"
    type: Literal["string", "integer", "number", "boolean"]

    def read(self, values: pd.Series) -> tuple[pd.Series, np.ndarray]:
        coerced = coerce(values, Column(type=self.type))
        nullable = {"integer": "Int64", "boolean": "boolean"}.get(self.type)
        read = coerced.values.set_axis(values.index)
        if self.type == "string" and pd.api.types.is_datetime64_dtype(values.dtype):  # dates: timestamps have a zone
            read = read.str.removesuffix(_MIDNIGHT)
        return (as_dtype(read, nullable) if nullable else read), coerced.unreadable


def as_dtype(values: pd.Series, dtype: str) -> pd.Series:
    column: pd.Series = values.astype(pd.api.types.pandas_dtype(dtype))
    return column


def _require_finite(argument: str, value: Any) -> None:
    if isinstance(value, float) and not is_number(value):
        raise ValueError(f"{argument} is {value}; it should be a number")


def _is_time(value: Any) -> bool:
    return not coerce(pd.Series([str(value)], dtype="str"), Column(type="time")).unreadable.any()


def _fitting(values: pd.Series, filling: Any) -> Any:
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return moment_of(filling, values)  # a number would be nanoseconds since 1970
    if is_text(values):
        if isinstance(filling, bool):
            raise TypeError("a boolean in a text column; YAML reads NO without quotes as false")
        return str(filling)
    if isinstance(filling, str):
        raise TypeError("text in a column that does not hold text")
    return filling


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "integer" if isinstance(value, int) else "number" if isinstance(value, float) else "text"


def _kind_of_dtype(values: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(values.dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(values.dtype):
        return "integer"
    return "number" if pd.api.types.is_float_dtype(values.dtype) else "text"
