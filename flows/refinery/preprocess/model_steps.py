"""Built-in steps that prepare columns for machine learning: they scale numbers, encode categories, and split rows into
training and test data."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PrivateAttr, field_validator, model_validator

from flows.refinery.contract.model import ONE_OR_SEVERAL
from flows.refinery.preprocess.argument_types import misfit, moment_of
from flows.refinery.preprocess.step_base import (
    Finite,
    Fitted,
    FittedStep,
    Names,
    Step,
    StepFailed,
    is_number,
    is_scalar,
    python_value,
    with_columns,
)
from flows.refinery.preprocess.table_steps import clean_name
from flows.refinery.validate.exact_sums import ExactMoments

MAX_CATEGORIES = 1_000


class _Scaling(FittedStep):
    # The names of the two numbers that the step learns about each column.
    learns: ClassVar[tuple[str, str]]
    _states: dict[str, Any] = PrivateAttr(default_factory=dict)

    def learn(self, frame: pd.DataFrame) -> None:
        self.require(frame, self.targets)
        for name in self.targets:
            values = self.numbers(name, frame[name]).dropna().to_numpy()
            self._states.setdefault(name, ExactMoments()).add(values)

    def change(self, name: str, values: pd.Series) -> pd.Series:
        numbers = self.numbers(name, values)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = self.scaled(numbers, self.of(name))
        lost = np.isfinite(numbers) & ~np.isfinite(scaled)
        if lost.any():
            raise self.fail_at(values.index[lost], f"numbers of the column {name!r} are too large to be scaled")
        return scaled

    @abstractmethod
    def scaled(self, numbers: pd.Series, known: Mapping[str, float]) -> pd.Series:
        """Return the scaled numbers of a column. `known` has the learned or pinned parameters of that column."""

    def wanted_instead(self, known: Any) -> str:
        is_right = isinstance(known, Mapping) and set(known) == set(self.learns) and all(map(is_number, known.values()))
        return "" if is_right else f"a mapping with a number for {' and for '.join(self.learns)}, as in a receipt"


class Standardize(_Scaling):
    """Subtracts the mean from numbers, and divides the results by the population standard deviation, as scikit-learn
    does."""

    name = "standardize"
    learns = ("mean", "std")

    def learned(self) -> Fitted:
        return {name: {"mean": state.mean, "std": state.population_deviation} for name, state in self._states.items()}

    def scaled(self, numbers: pd.Series, known: Mapping[str, float]) -> pd.Series:
        scaled: pd.Series = (numbers - known["mean"]) / (known["std"] or 1.0)
        return scaled


class MinMaxScale(_Scaling):
    """Scales numbers so that the minimum becomes 0 and the maximum becomes 1, or to the range in `feature_range`."""

    name = "min_max_scale"
    learns = ("min", "max")
    feature_range: tuple[Finite, Finite] = (0.0, 1.0)

    @field_validator("feature_range")
    @classmethod
    def _rises(cls, value: tuple[Finite, Finite]) -> tuple[Finite, Finite]:
        if value[0] >= value[1]:
            raise ValueError(f"feature_range {list(value)} must be two numbers, with the smaller one first")
        return value

    def learned(self) -> Fitted:
        return {name: {"min": state.low, "max": state.high} for name, state in self._states.items()}

    def scaled(self, numbers: pd.Series, known: Mapping[str, float]) -> pd.Series:
        low, high = self.feature_range
        span = (known["max"] - known["min"]) or 1.0
        scaled: pd.Series = (numbers - known["min"]) / span * (high - low) + low
        return scaled


class _Encoding(FittedStep):
    categories: dict[str, list[Any]] | None = None
    handle_unknown: Literal["ignore", "fail"] = "fail"
    _seen: dict[str, set[Any]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _categories_are_fitted(self) -> _Encoding:
        self.require_shape("categories", self.categories)
        if self.categories is not None and self.fitted is None:
            self.fitted = dict(self.categories)
        return self

    def wanted_instead(self, known: Any) -> str:
        is_right = isinstance(known, list | tuple) and all(map(is_scalar, known)) and len(set(known)) == len(known)
        return "" if is_right else "a list of distinct strings, numbers or booleans (put quotes around dates)"

    def misfits(self, name: str, values: pd.Series) -> Iterator[str]:
        for category in (self.fitted or {}).get(name, ()):
            wanted = misfit(category, values)
            if wanted:
                yield f"the category {category!r} cannot occur in the column {name!r}; it should be {wanted}"

    def learn(self, frame: pd.DataFrame) -> None:
        self.require(frame, self.targets)
        for name in self.targets:
            seen = self._seen.setdefault(name, set())
            seen.update(map(_category, frame[name].dropna().unique()))
            if len(seen) > MAX_CATEGORIES:
                raise StepFailed(
                    f"step {self.label}: the column {name!r} has more than {MAX_CATEGORIES:,} different values"
                )

    def learned(self) -> Fitted:
        return {name: sorted(self._seen.get(name, ()), key=_order) for name in self.targets}

    def codes(self, name: str, values: pd.Series) -> np.ndarray:
        """Return the position of each value in the column's list of categories, or -1 if the value is missing or not in
        the list. If `handle_unknown` is "fail", raise StepFailed for values that are not in the list."""
        places = {_met_as(category, values): place for place, category in enumerate(self.of(name))}
        found, distinct = pd.factorize(values)
        known = np.array([*(places.get(_category(value), -1) for value in distinct), -1], dtype=np.int64)
        codes: np.ndarray = known[found]  # pandas gives a missing value the code -1, which selects the last element
        unknown = (codes < 0) & values.notna().to_numpy()
        if self.handle_unknown == "fail" and unknown.any():
            raise self.fail_at(values.index[unknown], f"a value of the column {name!r} is not one of its categories")
        return codes


class OneHotEncode(_Encoding):
    """Replaces a column with one column per category, which is 1 in the rows of that category and 0 in other rows;
    missing and ignored unknown values give 0 in all of them."""

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
    """Replaces each value with its position, counted from 0, in `categories` or, by default, in the sorted list of
    values; missing and ignored unknown values become missing."""

    name = "ordinal_encode"

    def change(self, name: str, values: pd.Series) -> pd.Series:
        codes = self.codes(name, values)
        return pd.Series(pd.arrays.IntegerArray(codes, codes < 0), index=values.index)


class TrainTestSplit(Step):
    """Adds a column with the values `train` and `test`, depending on a hash of the row's key, so that a key gets the
    same value in every file."""

    name = "train_test_split"
    key: Annotated[Names, ONE_OR_SEVERAL]
    test_size: Annotated[float, Field(gt=0, lt=1)] = 0.2
    column: str = "split"
    seed: str | int = ""

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.key)
        if self.column in frame.columns:
            raise StepFailed(f"step {self.label}: the column {self.column!r} already exists")
        limit = int(self.test_size * 2**64)
        keys = zip(*(frame[name].map(_key_text) for name in self.key), strict=True)
        is_test = np.array([self._place(key) < limit for key in keys], dtype=bool)
        split = pd.Series(np.where(is_test, "test", "train"), index=frame.index, dtype="str")
        return with_columns(frame, {self.column: split})

    def _place(self, key: tuple[str, ...]) -> int:
        text = json.dumps([str(self.seed), *key], ensure_ascii=True).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _category(value: Any) -> Any:
    """Return a value in the form that receipts and column names show. Dates are written without a time."""
    text = python_value(value)
    return text.removesuffix("T00:00:00") if isinstance(value, pd.Timestamp) else text


def _met_as(category: Any, values: pd.Series) -> Any:
    """Convert a category to the form that `_category` gives the values of a column. A date can be written in several
    ways, such as 2024-05-01 and 2024-05-01 00:00."""
    is_date = pd.api.types.is_datetime64_any_dtype(values.dtype) and not misfit(category, values)
    return _category(moment_of(category, values)) if is_date else category


def _order(value: Any) -> tuple[str, Any]:
    """Return a sort key that orders values by the name of their type ("number" for all numbers), and then by value."""
    return ("number", value) if isinstance(value, int | float) else (type(value).__name__, value)


def _key_text(value: Any) -> str:
    if pd.isna(value):
        return "\0missing"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # missing values turn a column of integers into floats; the key must stay the same
    return str(python_value(value))
