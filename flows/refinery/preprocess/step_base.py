"""Base classes of the built-in preprocessing steps, and functions that the steps share.

`Step` works on whole rows, `OnColumns` on some columns, and `FittedStep` must first learn from all rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from flows.refinery.errors import TerminalError
from flows.refinery.suggestions import did_you_mean


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"the column {twice[0]!r} is named twice; name it once")
    return names


Names = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_different)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fitted = dict[str, Any]


class StepFailed(TerminalError):
    """A preprocessing step cannot be applied to this file.

    A column is missing, a value does not fit, or a function in the dataset's steps.py raised an error or returned
    something other than a table of these rows. The message names the step and, if known, the first row that failed.
    """


class ColumnMissing(StepFailed):
    """A step names a column that does not exist when the step runs."""


class NoColumnLeft(StepFailed):
    """A step would remove all remaining columns. Rows without columns cannot be published."""


class Step(BaseModel, ABC):
    """A built-in step with its arguments. `apply` never changes the frame that it gets. Results and messages show the
    step's `label`: its name, with #2 for the second step of that name, and so on."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    name: ClassVar[str]
    label: str = Field("", exclude=True)

    @abstractmethod
    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the result of the step for some rows. The frame's index is each row's number in the source file, and
        the result must keep it."""

    def new_names(self, columns: Sequence[str]) -> dict[str, str]:
        """Return the new name of each column that the step renames."""
        del columns
        return {}

    def kinds_after(self, kinds: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
        """Return the columns, each with "date" or "time", that are still published as dates or times after the step.

        Args:
            kinds: the columns that were published as dates or times before the step, each with "date" or "time".
            columns: the names of all columns before the step.

        Raises:
            StepFailed: the step would put a value of a different type into such a column.
        """
        names = self.new_names(columns)
        return {names.get(name, name): kind for name, kind in kinds.items()}

    def require(self, frame: pd.DataFrame, columns: Sequence[str]) -> None:
        """Raise ColumnMissing if one of the columns does not exist in the frame. The message lists those that do."""
        missing = [name for name in columns if name not in frame.columns]
        if missing:
            there = ", ".join(map(repr, frame.columns))
            raise ColumnMissing(
                f"step {self.label}: there is no column {missing[0]!r} at this point; the columns are {there}"
                + did_you_mean(missing[0], frame.columns)
            )

    def fail_at(self, rows: pd.Index, why: str) -> StepFailed:
        """Return a StepFailed error for values that do not fit. Its message contains the reason, the number of rows and
        the row number of the first one."""
        # The number is -1 if a custom function before this step has replaced the index.
        first = f"; the first is row {rows[0]}" if len(rows) and rows[0] >= 0 else ""
        return StepFailed(f"step {self.label}: {why} ({len(rows)} rows{first})")


class OnColumns(Step):
    """A step that changes the values in one column (`column`) or in several (`columns`)."""

    column: str | None = None
    columns: Names | None = None

    @model_validator(mode="after")
    def _one_or_several(self) -> OnColumns:
        if (self.column is None) == (self.columns is None):
            raise ValueError("give either column or columns")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        return self.columns or (self.column or "",)

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.targets)
        return with_columns(frame, {name: self.change(name, frame[name]) for name in self.targets})

    def kinds_after(self, kinds: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
        del columns
        return {name: kind for name, kind in kinds.items() if name not in self.targets}

    def misfits(self, name: str, values: pd.Series) -> Iterator[str]:
        """Yield an error message for each argument that does not suit the column `name`, whose values have the dtype of
        `values`."""
        del name, values
        yield from ()

    def change(self, name: str, values: pd.Series) -> pd.Series:
        raise NotImplementedError

    def numbers(self, name: str, values: pd.Series) -> pd.Series:
        """Convert a column of numbers to floats. Raise StepFailed if it is not a column of numbers."""
        if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
            raise StepFailed(f"step {self.label}: the column {name!r} does not hold numbers; cast it first")
        return values.astype("float64")


class FittedStep(OnColumns):
    """A step that learns parameters from all rows, such as a column's mean, before it changes them. With the argument
    `fitted`, it uses given parameters instead, such as those in the receipt of an earlier run."""

    fitted: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _pinned_values_are_of_this_step(self) -> FittedStep:
        self.require_shape("fitted", self.fitted)
        return self

    def require_shape(self, argument: str, pinned: Mapping[str, Any] | None) -> None:
        """Raise ValueError if pinned parameters do not have the form of those that this step learns. The message shows
        the expected form."""
        for name, known in (pinned or {}).items():
            wanted = self.wanted_instead(known)
            if wanted:
                raise ValueError(f"{argument}: for the column {name!r} it is {known!r}; it should be {wanted}")

    @abstractmethod
    def wanted_instead(self, known: Any) -> str:
        """Describe the form that the pinned parameters of one column should have, such as "a list of distinct strings",
        for use in a message. Return "" if `known` has this form."""

    @abstractmethod
    def learn(self, frame: pd.DataFrame) -> None:
        """Learn from some of the rows. Must be called for all rows before `finish`."""

    @abstractmethod
    def learned(self) -> Fitted:
        """Return the learned parameters: one JSON value for each column."""

    @property
    def is_fitted(self) -> bool:
        """Return whether the step can be applied, because it has nothing left to learn."""
        return self.fitted is not None

    def finish(self) -> None:
        """Set `fitted` to the learned parameters."""
        self.fitted = self.learned()

    def of(self, name: str) -> Any:
        """Return the parameters of one column. Raise StepFailed if `fitted` does not include the column."""
        fitted = self.fitted or {}
        if name not in fitted:
            raise StepFailed(f"step {self.label}: the pinned values in `fitted` do not include the column {name!r}")
        return fitted[name]


def with_columns(frame: pd.DataFrame, columns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return a copy of the frame with some columns replaced or added. It exists because `DataFrame.assign` cannot add a
    column with the name self."""
    changed = frame.copy(deep=False)
    for name, values in columns.items():
        changed[name] = values
    return changed


def require_a_column(label: str, before: pd.DataFrame, after: pd.DataFrame) -> None:
    """Raise NoColumnLeft if a step has removed all columns of a table that had at least one."""
    if len(before.columns) and not len(after.columns):
        raise NoColumnLeft(f"step {label} leaves no column; keep at least one")


def fits_in_64_bits(value: float) -> bool:
    """Return whether a number, rounded towards zero, fits into a column of 64-bit integers."""
    return -(2**63) <= value < 2**63


def is_text(values: pd.Series) -> bool:
    return isinstance(values.dtype, pd.StringDtype)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number. Booleans do not count as numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def is_scalar(value: Any) -> bool:
    """Return whether a value is a string, a boolean or a finite number."""
    return isinstance(value, str | bool) or is_number(value)


def python_value(value: Any) -> Any:
    """Convert a value of a column to the plain Python value that contracts and receipts use. A timestamp becomes a
    string in ISO 8601."""
    if isinstance(value, np.generic):
        value = value.item()
    return value.isoformat() if isinstance(value, pd.Timestamp) else value
