"""Preprocessing steps: the built-in ones, named as pandas or scikit-learn name them, and the dataset's own functions.

A step is row-local (it sees one partition at a time), fitted (it first sees all rows, keeps what it learned, and is
row-local from then on), or the dataset's own (it gets all rows as one frame).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from flows.refinery.coercion import coerce
from flows.refinery.contract import ContractInvalid
from flows.refinery.contract_model import Column, Contract
from flows.refinery.contract_model import Step as WrittenStep
from flows.refinery.errors import TerminalError
from flows.refinery.exact import ExactMoments
from flows.refinery.uniqueness import HashCollector, duplicated_rows

MAX_CATEGORIES = 1_000
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Fitted = dict[str, Any]


class StepFailed(TerminalError):
    """A preprocessing step cannot be done on this file: a column is not there, a value does not fit, or the dataset's own
    function raised or returned something that is no table of these rows. The message names the step, and the first row."""


class Step(BaseModel, ABC):
    """A built-in step with its arguments. `apply` never changes the frame that it is given.

    Attributes:
        label: how the step is named in tallies and messages: its name, with #2 for the second of its kind.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    name: ClassVar[str]
    label: str = Field("", exclude=True)

    @abstractmethod
    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Do the step on some rows. The index holds the rows' numbers in the source and stays with its rows."""

    def new_names(self, columns: Sequence[str]) -> dict[str, str]:
        """The columns that it gives another name."""
        del columns
        return {}

    def require(self, frame: pd.DataFrame, columns: Sequence[str]) -> None:
        """Refuse to go on without these columns.

        Raises:
            StepFailed: with the columns that there are.
        """
        missing = [name for name in columns if name not in frame.columns]
        if missing:
            there = ", ".join(map(repr, frame.columns))
            raise StepFailed(f"step {self.label}: there is no column {missing[0]!r} at this point; there are {there}")

    def fail_at(self, rows: pd.Index, why: str) -> StepFailed:
        """The error for values that do not fit, with the first row's number."""
        first = f"; the first is row {rows[0]}" if len(rows) else ""
        return StepFailed(f"step {self.label}: {why} ({len(rows)} rows{first})")


class OnColumns(Step):
    """A step on one column (`column`) or several (`columns`)."""

    column: str | None = None
    columns: Names | None = None

    @model_validator(mode="after")
    def _one_or_several(self) -> OnColumns:
        if (self.column is None) == (self.columns is None):
            raise ValueError("give either column or columns")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that it is about."""
        return self.columns or (self.column or "",)

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.targets)
        return frame.assign(**{name: self.change(name, frame[name]) for name in self.targets})

    def change(self, name: str, values: pd.Series) -> pd.Series:
        """The new values of one column."""
        raise NotImplementedError

    def numbers(self, name: str, values: pd.Series) -> pd.Series:
        """A column of numbers as floats.

        Raises:
            StepFailed: it holds something else.
        """
        if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
            raise StepFailed(f"step {self.label}: the column {name!r} holds no numbers; cast it first")
        return values.astype("float64")


class FittedStep(OnColumns):
    """A step that learns from all rows. `fitted` pins what an earlier run learned, as its receipt says."""

    fitted: dict[str, Any] | None = None

    @abstractmethod
    def learn(self, frame: pd.DataFrame) -> None:
        """Take in some rows."""

    @abstractmethod
    def learned(self) -> Fitted:
        """What all rows taught, as JSON can hold it, by column."""

    @property
    def is_fitted(self) -> bool:
        """Whether there is nothing to learn."""
        return self.fitted is not None

    def finish(self) -> None:
        """Keep what was learned."""
        self.fitted = self.learned()

    def of(self, name: str) -> Any:
        """What is known of one column.

        Raises:
            StepFailed: the pinned values do not name it.
        """
        fitted = self.fitted or {}
        if name not in fitted:
            raise StepFailed(f"step {self.label}: the pinned fitted values say nothing of the column {name!r}")
        return fitted[name]


# --- columns and rows -------------------------------------------------------------------------------------------------


class CleanColumnNames(Step):
    """Column names in snake_case, of ASCII letters, digits and _; a name that is taken gets _2."""

    name = "clean_column_names"

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.rename(columns=self.new_names(list(frame.columns)))

    def new_names(self, columns: Sequence[str]) -> dict[str, str]:
        seen: Counter[str] = Counter()
        names: dict[str, str] = {}
        taken: set[str] = set()
        for column in columns:
            clean = clean_name(str(column))
            seen[clean] += 1
            unique = clean if clean not in taken else f"{clean}_{seen[clean]}"
            while unique in taken:
                seen[clean] += 1
                unique = f"{clean}_{seen[clean]}"
            taken.add(unique)
            names[column] = unique
        return names


def clean_name(name: str) -> str:
    """A column name in snake_case: "Order ID (€)" is order_id, "unitPrice" unit_price, "1st" _1st."""
    text = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    text = re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_").lower()
    return f"_{text}" if text[:1].isdigit() else text or "column"


class StripWhitespace(Step):
    """Text without white space at its ends, in `columns` or in every text column."""

    name = "strip_whitespace"
    columns: Names | None = None

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        if self.columns:
            self.require(frame, self.columns)
        names = self.columns or [name for name in frame.columns if _is_text(frame[name])]
        return frame.assign(**{name: frame[name].str.strip() for name in names if _is_text(frame[name])})


class Rename(Step):
    """Other names for columns: {columns: {old: new}}."""

    name = "rename"
    columns: Annotated[dict[str, str], Field(min_length=1)]

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, list(self.columns))
        renamed = frame.rename(columns=self.columns)
        if renamed.columns.has_duplicates:
            twice = renamed.columns[renamed.columns.duplicated()][0]
            raise StepFailed(f"step {self.label}: two columns would be named {twice!r}")
        return renamed

    def new_names(self, columns: Sequence[str]) -> dict[str, str]:
        return {name: self.columns[name] for name in columns if name in self.columns}


class Select(Step):
    """Only these columns, in this order."""

    name = "select"
    columns: Names

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.columns)
        return frame[list(self.columns)]


class DropColumns(Step):
    """All columns but these."""

    name = "drop_columns"
    columns: Names

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.columns)
        return frame.drop(columns=list(self.columns))


class DropMissing(Step):
    """Drops rows in which a value is missing (`how: any`), or all are, in `subset` or in every column."""

    name = "drop_missing"
    subset: Names | None = None
    how: Literal["any", "all"] = "any"

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.subset or ())
        return frame.dropna(subset=list(self.subset) if self.subset else None, how=self.how)


class DropDuplicates(Step):
    """Drops rows whose values in `subset` (or in every column) occurred before (`keep: first`), occur again (last), or
    occur more than once at all (none)."""

    name = "drop_duplicates"
    subset: Names | None = None
    keep: Literal["first", "last", "none"] = "first"
    _position: int = 0
    _dropped: np.ndarray = np.empty(0, dtype=np.int64)

    @field_validator("keep", mode="before")
    @classmethod
    def _as_pandas_writes_it(cls, value: Any) -> Any:
        return "none" if value is False else value

    def keys(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The columns that make two rows equal."""
        self.require(frame, self.subset or ())
        keys: pd.DataFrame = frame[list(self.subset)] if self.subset else frame
        return keys

    def find(self, frames: Callable[[], Iterator[pd.DataFrame]], collector: HashCollector) -> None:
        """Find the duplicates; `frames` gives again the rows whose keys the collector has seen."""

        def keys() -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
            position = 0
            for frame in frames():
                yield self.keys(frame), np.arange(position, position + len(frame))
                position += len(frame)

        keep: Literal["first", "last", False] = False if self.keep == "none" else self.keep
        self._dropped = duplicated_rows(collector, keys, keep)
        self._position = 0

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        end = self._position + len(frame)
        low, high = np.searchsorted(self._dropped, [self._position, end])
        drop = np.zeros(len(frame), dtype=bool)
        drop[self._dropped[low:high] - self._position] = True
        self._position = end
        return frame[~drop] if drop.any() else frame


# --- values -----------------------------------------------------------------------------------------------------------


class FillMissing(FittedStep):
    """Fills missing values with `value`, or with the column's mean, median or mode (`strategy`)."""

    name = "fill_missing"
    value: str | int | float | bool | None = None
    strategy: Literal["mean", "median", "mode"] | None = None
    _states: dict[str, Any] = {}

    @model_validator(mode="after")
    def _value_or_strategy(self) -> FillMissing:
        if (self.value is None) == (self.strategy is None):
            raise ValueError("give either value or strategy (mean, median, mode)")
        self._states = {}
        return self

    @property
    def is_fitted(self) -> bool:
        return self.value is not None or self.fitted is not None

    def learn(self, frame: pd.DataFrame) -> None:
        self.require(frame, self.targets)
        for name in self.targets:
            values = frame[name].dropna()
            if self.strategy == "mean":
                self._states.setdefault(name, ExactMoments()).add(self.numbers(name, values).to_numpy())
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
        return _plain(state[state == state.max()].sort_index().index[0])  # of equals the least, as pandas' mode

    def change(self, name: str, values: pd.Series) -> pd.Series:
        filling = self.value if self.value is not None else self.of(name)
        if filling is None or not values.isna().any():
            return values
        if pd.api.types.is_integer_dtype(values.dtype) and isinstance(filling, float):
            if not filling.is_integer():
                return values.astype("float64").fillna(filling)
            filling = int(filling)
        try:
            return values.fillna(_fitting(values, filling))
        except (TypeError, ValueError):
            raise StepFailed(
                f"step {self.label}: {type(filling).__name__} does not fit into the column {name!r} ({values.dtype})"
            ) from None


class Clip(OnColumns):
    """Numbers below `lower` become lower, those above `upper` become upper."""

    name = "clip"
    lower: float | None = None
    upper: float | None = None

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
        if not whole:
            return self.numbers(name, values).clip(self.lower, self.upper)
        lower, upper = (None if bound is None else int(bound) for bound in (self.lower, self.upper))
        return values.clip(lower, upper)


class MapValues(OnColumns):
    """Other values for values: {mapping: {old: new}}. What is not in the mapping stays, or becomes `default`."""

    name = "map_values"
    mapping: Annotated[dict[Any, Any], Field(min_length=1)]
    default: str | int | float | bool | None = None
    unmapped: Literal["keep", "default", "fail"] = "keep"

    @model_validator(mode="after")
    def _default_goes_with_unmapped(self) -> MapValues:
        if self.default is not None and self.unmapped == "keep":
            self.unmapped = "default"
        return self

    def change(self, name: str, values: pd.Series) -> pd.Series:
        known = values.isin(list(self.mapping))
        unknown = ~known & values.notna()
        if self.unmapped == "fail" and unknown.any():
            raise self.fail_at(values.index[unknown], f"the mapping does not know a value of the column {name!r}")
        new = values.map(self.mapping)
        if self.unmapped == "keep" and not self._is_total(values):
            if _kind(list(self.mapping.values())) != _kind_of_dtype(values):
                new = new.astype(object).where(known, values.astype(object))
                return new.map(str, na_action="ignore").astype("str")
            return new.where(known, values).astype(values.dtype)
        outcomes = [*self.mapping.values(), *([self.default] if self.default is not None else [])]
        if self.unmapped == "default" and self.default is not None:
            new = new.astype(object).where(~unknown, self.default)
        return new.astype(_dtype_for(outcomes))

    @staticmethod
    def _is_total(values: pd.Series) -> bool:
        return pd.api.types.is_bool_dtype(values.dtype)


class _Reading(OnColumns):
    """A step that reads values as another type; what cannot be read stops the file, or drops the row (`errors: drop`)."""

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
        changed = frame.assign(**columns)
        return changed if keep.all() else changed[keep]

    @abstractmethod
    def read(self, values: pd.Series) -> tuple[pd.Series, np.ndarray]:
        """The values read, and a mask of those that cannot be."""


class ParseDates(_Reading):
    """Text as timestamps in UTC; `format` in strftime's codes, ISO 8601 where it is not given."""

    name = "parse_dates"
    format: str | None = None
    timezone: str | None = None

    def read(self, values: pd.Series) -> tuple[pd.Series, np.ndarray]:
        column = Column(type="timestamp", format=self.format, timezone=self.timezone)
        coerced = coerce(values, column)
        moments = coerced.values.set_axis(values.index).dt.tz_localize("UTC")
        return moments, coerced.unreadable


class Cast(_Reading):
    """Values as string, integer, number or boolean."""

    name = "cast"
    type: Literal["string", "integer", "number", "boolean"]

    def read(self, values: pd.Series) -> tuple[pd.Series, np.ndarray]:
        coerced = coerce(values, Column(type=self.type))
        nullable = {"integer": "Int64", "boolean": "boolean"}.get(self.type)
        read = coerced.values.set_axis(values.index)
        return (read.astype(nullable) if nullable else read), coerced.unreadable


# --- scaling and encoding ---------------------------------------------------------------------------------------------


class _Scaling(FittedStep):
    _states: dict[str, Any] = {}

    @model_validator(mode="after")
    def _nothing_learned_yet(self) -> _Scaling:
        self._states = {}
        return self

    def learn(self, frame: pd.DataFrame) -> None:
        self.require(frame, self.targets)
        for name in self.targets:
            values = self.numbers(name, frame[name]).dropna().to_numpy()
            self._states.setdefault(name, self.new_state()).add(values)

    def new_state(self) -> Any:
        """What collects one column's values."""
        return ExactMoments()


class Standardize(_Scaling):
    """Numbers minus their mean, divided by their standard deviation (of the population, as scikit-learn's StandardScaler)."""

    name = "standardize"

    def learned(self) -> Fitted:
        return {name: {"mean": state.mean, "std": state.population_deviation} for name, state in self._states.items()}

    def change(self, name: str, values: pd.Series) -> pd.Series:
        known = self.of(name)
        return (self.numbers(name, values) - known["mean"]) / (known["std"] or 1.0)


class MinMaxScale(_Scaling):
    """Numbers moved and stretched so that the least becomes 0 and the greatest 1 (`feature_range`)."""

    name = "min_max_scale"
    feature_range: tuple[float, float] = (0.0, 1.0)

    @field_validator("feature_range")
    @classmethod
    def _rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError(f"feature_range {list(value)} does not rise")
        return value

    def learned(self) -> Fitted:
        return {name: {"min": state.low, "max": state.high} for name, state in self._states.items()}

    def change(self, name: str, values: pd.Series) -> pd.Series:
        known = self.of(name)
        low, high = self.feature_range
        span = (known["max"] - known["min"]) or 1.0
        return (self.numbers(name, values) - known["min"]) / span * (high - low) + low


class _Encoding(FittedStep):
    categories: dict[str, list[Any]] | None = None
    handle_unknown: Literal["ignore", "fail"] = "fail"
    _seen: dict[str, set[Any]] = {}

    @model_validator(mode="after")
    def _nothing_seen_yet(self) -> _Encoding:
        self._seen = {}
        if self.categories is not None and self.fitted is None:
            self.fitted = dict(self.categories)
        return self

    def learn(self, frame: pd.DataFrame) -> None:
        self.require(frame, self.targets)
        for name in self.targets:
            seen = self._seen.setdefault(name, set())
            seen.update(_plain(value) for value in frame[name].dropna().unique())
            if len(seen) > MAX_CATEGORIES:
                raise StepFailed(
                    f"step {self.label}: the column {name!r} has more than {MAX_CATEGORIES:,} different values"
                )

    def learned(self) -> Fitted:
        return {name: sorted(self._seen.get(name, ()), key=_order) for name in self.targets}

    def codes(self, name: str, values: pd.Series) -> np.ndarray:
        """The place of each value among the categories; -1 for missing and unknown ones."""
        plain = values.astype(object).where(values.notna(), None)
        places = {category: place for place, category in enumerate(self.of(name))}
        codes = np.array([places.get(_plain(value), -1) for value in plain], dtype=np.int64)
        unknown = (codes < 0) & values.notna().to_numpy()
        if self.handle_unknown == "fail" and unknown.any():
            raise self.fail_at(values.index[unknown], f"a value of the column {name!r} is in none of its categories")
        return codes


class OneHotEncode(_Encoding):
    """A column of 0 and 1 for each category, in place of the column; a missing value has 0 in all of them."""

    name = "one_hot_encode"

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.targets)
        columns: dict[str, pd.Series] = {}
        for name in frame.columns:
            if name not in self.targets:
                columns[name] = frame[name]
                continue
            codes = self.codes(name, frame[name])
            for place, category in enumerate(self.of(name)):
                flags = pd.Series((codes == place).astype("int8"), index=frame.index)
                new = clean_name(f"{name}_{category}")
                if new in columns or (new in frame.columns and new not in self.targets):
                    raise StepFailed(f"step {self.label}: two columns would be named {new!r}")
                columns[new] = flags
        return pd.DataFrame(columns, index=frame.index)


class OrdinalEncode(_Encoding):
    """The place of each value among its sorted categories, from 0; missing stays missing."""

    name = "ordinal_encode"

    def change(self, name: str, values: pd.Series) -> pd.Series:
        codes = self.codes(name, values)
        return pd.Series(pd.arrays.IntegerArray(codes, codes < 0), index=values.index)


class TrainTestSplit(Step):
    """A column that says train or test, by a hash of the key: a key falls to the same side in every file."""

    name = "train_test_split"
    key: Names
    test_size: Annotated[float, Field(gt=0, lt=1)] = 0.2
    column: str = "split"
    seed: str | int = ""

    @field_validator("key", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.key)
        if self.column in frame.columns:
            raise StepFailed(f"step {self.label}: there is a column {self.column!r} already")
        limit = int(self.test_size * 2**64)
        keys = zip(*(frame[name].map(_key_text) for name in self.key), strict=True)
        is_test = np.array([self._place(key) < limit for key in keys], dtype=bool)
        split = pd.Series(np.where(is_test, "test", "train"), index=frame.index, dtype="str")
        return frame.assign(**{self.column: split})

    def _place(self, key: tuple[str, ...]) -> int:
        said = json.dumps([str(self.seed), *key], ensure_ascii=True).encode()
        return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big")


BUILT_IN: dict[str, type[Step]] = {
    step.name: step
    for step in (
        CleanColumnNames,
        StripWhitespace,
        Rename,
        Select,
        DropColumns,
        DropDuplicates,
        FillMissing,
        DropMissing,
        Clip,
        MapValues,
        ParseDates,
        Cast,
        Standardize,
        MinMaxScale,
        OneHotEncode,
        OrdinalEncode,
        TrainTestSplit,
    )
}


# --- the dataset's own functions ----------------------------------------------------------------------------------------


class OwnStep:
    """A function of the dataset's steps.py: DataFrame -> DataFrame, on all rows at once."""

    def __init__(self, label: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self.label = label
        self._function = function
        self._arguments = dict(arguments)

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Call the function.

        Raises:
            StepFailed: it raised, did not return a DataFrame, or returned more rows than it got.
        """
        row_numbers = frame.index
        given = frame.reset_index(drop=True)
        try:
            result = self._function(given.copy(), **self._arguments)
        except Exception as error:  # noqa: BLE001 it is the user's function: anything may come
            raise self._failure(error, given, row_numbers) from None
        if not isinstance(result, pd.DataFrame):
            raise StepFailed(f"step {self.label} returned {type(result).__name__}; it must return a DataFrame")
        if len(result) > len(given):
            raise StepFailed(f"step {self.label} returned {len(result)} rows for {len(given)}; it may not add rows")
        if result.columns.has_duplicates:
            raise StepFailed(f"step {self.label} returned two columns of the same name")
        return result.set_axis(_row_numbers_of(result, row_numbers), axis=0)

    def _failure(self, error: Exception, given: pd.DataFrame, row_numbers: pd.Index) -> StepFailed:
        where = _place_in_function(error)
        first = self._first_failing_row(given)
        row = "" if first is None else f"; the first row that it fails on is row {row_numbers[first]}"
        return StepFailed(f"step {self.label} raised {type(error).__name__}{where}{row}")

    def _first_failing_row(self, given: pd.DataFrame) -> int | None:
        """The first row that fails by itself, found by halving; None where no single row does."""
        low, high = 0, len(given)
        while high - low > 1:
            middle = (low + high) // 2
            if self._fails(given.iloc[low:middle]):
                high = middle
            elif self._fails(given.iloc[middle:high]):
                low = middle
            else:
                return None
        return low if high > low and self._fails(given.iloc[low:high]) else None

    def _fails(self, rows: pd.DataFrame) -> bool:
        try:
            self._function(rows.reset_index(drop=True), **self._arguments)
        except Exception:  # noqa: BLE001 as above
            return True
        return False


def load_own_steps(path: Path) -> ModuleType:
    """Execute a dataset's steps.py.

    Raises:
        StepFailed: it raised while it was imported.
    """
    spec = importlib.util.spec_from_file_location(f"sluice_steps_{path.parent.name}", path)
    if spec is None or spec.loader is None:
        raise StepFailed(f"{path.name} of {path.parent.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 it is the user's module
        raise StepFailed(
            f"{path.name} of {path.parent.name} raised {type(error).__name__} when it was imported"
        ) from None
    return module


def compile_steps(contract: Contract) -> list[Step | OwnStep]:
    """The contract's steps, ready to be applied. They hold what they learn: compile them anew for each file.

    Raises:
        ContractInvalid: a step's arguments are wrong.
        StepFailed: the dataset's steps.py cannot be imported.
    """
    seen: Counter[str] = Counter()
    steps: list[Step | OwnStep] = []
    module: ModuleType | None = None
    for written in contract.preprocess:
        seen[written.name] += 1
        label = written.name if seen[written.name] == 1 else f"{written.name}#{seen[written.name]}"
        if not written.is_own:
            steps.append(_built_in(contract, written, label))
            continue
        if contract.steps_path is None:
            raise ContractInvalid(f"contract {contract.dataset!r}: step {label}: there is no steps.py beside it")
        module = module or load_own_steps(contract.steps_path)
        function = getattr(module, written.function, None)
        if not callable(function):
            raise ContractInvalid(f"contract {contract.dataset!r}: steps.py has no function {written.function!r}")
        steps.append(OwnStep(label, function, written.arguments))
    return steps


def check_steps(contract: Contract) -> None:
    """Refuse wrong arguments of built-in steps.

    Raises:
        ContractInvalid: with step, argument and fault.
    """
    for position, written in enumerate(contract.preprocess, start=1):
        if not written.is_own:
            _built_in(contract, written, f"{written.name} (step {position})")


def _built_in(contract: Contract, written: WrittenStep, label: str) -> Step:
    try:
        step = BUILT_IN[written.name].model_validate(written.arguments)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False)
        )
        raise ContractInvalid(f"contract {contract.dataset!r}: step {label}: {faults}") from None
    step.label = label
    return step


# --- small things -------------------------------------------------------------------------------------------------------


def _is_text(values: pd.Series) -> bool:
    return isinstance(values.dtype, pd.StringDtype)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


def _order(value: Any) -> tuple[str, Any]:
    """Sorts values of one type by value, and types by name."""
    return ("number", value) if isinstance(value, int | float) else (type(value).__name__, value)


def _key_text(value: Any) -> str:
    if pd.isna(value):
        return "\0missing"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # the same key, whether or not its column had missing values
    return str(_plain(value))


def _fitting(values: pd.Series, filling: Any) -> Any:
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        moment = pd.Timestamp(filling)
        return moment if moment.tzinfo else moment.tz_localize("UTC")
    if pd.api.types.is_datetime64_dtype(values.dtype):
        return pd.Timestamp(filling)
    if _is_text(values):
        return str(filling)
    if isinstance(filling, str):
        raise TypeError("text among numbers")  # noqa: TRY004 caught by the caller
    return filling


def _kind(values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return "boolean"
    if kinds <= {int}:
        return "integer"
    return "number" if kinds <= {int, float} else "text"


def _kind_of_dtype(values: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(values.dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(values.dtype):
        return "integer"
    return "number" if pd.api.types.is_float_dtype(values.dtype) else "text"


def _dtype_for(values: Sequence[Any]) -> str:
    return {"boolean": "boolean", "integer": "Int64", "number": "float64", "text": "str"}[_kind(values)]


def _row_numbers_of(result: pd.DataFrame, row_numbers: pd.Index) -> pd.Index:
    """The row numbers of what a function returned; -1 where it gave its rows an index of its own."""
    index = result.index
    if index.is_unique and pd.api.types.is_integer_dtype(index.dtype):
        values = index.to_numpy()
        if not len(values) or (values.min() >= 0 and values.max() < len(row_numbers)):
            return row_numbers[values]
    return pd.Index(np.full(len(result), -1, dtype=np.int64))


def _place_in_function(error: Exception) -> str:
    """The line of the user's own code that raised."""
    trace = error.__traceback__
    line = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if Path(code.co_filename).name == "steps.py" and "refinery" not in code.co_filename:
            line = f" in steps.py, line {trace.tb_lineno}"
        trace = trace.tb_next
    return line
