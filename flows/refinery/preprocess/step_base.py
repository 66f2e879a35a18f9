"""The base classes of preprocessing steps: row-local, on some columns, or fitted on all rows first."""

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

    A column is missing, a value does not fit, or the dataset's own function raised or did not return a table of these
    rows. The message names the step and, if it can be found, the first row that failed.
    """


class ColumnMissing(StepFailed):
    """A step names a column that does not exist when the step runs."""


class NoColumnLeft(StepFailed):
    """A step removes the last column: rows without columns cannot be published."""


class Step(BaseModel, ABC):
    """A built-in step with its arguments. `apply` never changes the frame that it gets. `label` names the step in
    results and messages: its name, with #2 for the second step of that name."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    name: ClassVar[str]
    label: str = Field("", exclude=True)

    @abstractmethod
    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Apply the step to some rows. The index is each row's number in the source; the result must keep it."""

    def new_names(self, columns: Sequence[str]) -> dict[str, str]:
        """Return the columns that the step renames, with their new names."""
        del columns
        return {}

    def kinds_after(self, kinds: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
        """Return the columns that are still published as dates or times after the step.

        Args:
            kinds: these columns before the step: "date" or "time" by name.
            columns: all columns before the step.

        Raises:
            StepFailed: the step would put something else into such a column.
        """
        names = self.new_names(columns)
        return {names.get(name, name): kind for name, kind in kinds.items()}

    def require(self, frame: pd.DataFrame, columns: Sequence[str]) -> None:
        """Raise ColumnMissing, listing the existing columns, unless all of these exist."""
        missing = [name for name in columns if name not in frame.columns]
        if missing:
            there = ", ".join(map(repr, frame.columns))
            raise ColumnMissing(
                f"step {self.label}: there is no column {missing[0]!r} at this point; there are {there}"
                + did_you_mean(missing[0], frame.columns)
            )

    def fail_at(self, rows: pd.Index, why: str) -> StepFailed:
        """Return the error for values that do not fit, with the number of the first row."""
        # A dataset's own function may have lost the rows' numbers.
        first = f"; the first is row {rows[0]}" if len(rows) and rows[0] >= 0 else ""
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
        """Return the columns that the step changes."""
        return self.columns or (self.column or "",)

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.targets)
        return with_columns(frame, {name: self.change(name, frame[name]) for name in self.targets})

    def kinds_after(self, kinds: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
        del columns
        return {name: kind for name, kind in kinds.items() if name not in self.targets}

    def misfits(self, name: str, values: pd.Series) -> Iterator[str]:
        """Yield what is wrong with the arguments for a column whose values have the dtype of `values`."""
        del name, values
        yield from ()

    def change(self, name: str, values: pd.Series) -> pd.Series:
        """Return the new values of one column."""
        raise NotImplementedError

    def numbers(self, name: str, values: pd.Series) -> pd.Series:
        """Return a column of numbers as floats. Raise StepFailed when it holds something else."""
        if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
            raise StepFailed(f"step {self.label}: the column {name!r} holds no numbers; cast it first")
        return values.astype("float64")


class FittedStep(OnColumns):
    """A step that learns from all rows, unless `fitted` pins what an earlier run learned (its receipt has it)."""

    fitted: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _pinned_values_are_of_this_step(self) -> FittedStep:
        self.require_shape("fitted", self.fitted)
        return self

    def require_shape(self, argument: str, pinned: Mapping[str, Any] | None) -> None:
        """Raise ValueError, with the right form in its message, if pinned values are not what this step learns."""
        for name, known in (pinned or {}).items():
            wanted = self.wanted_instead(known)
            if wanted:
                raise ValueError(f"{argument}: for the column {name!r} it is {known!r}; it should be {wanted}")

    @abstractmethod
    def wanted_instead(self, known: Any) -> str:
        """Return what the pinned values of one column should be instead; "" if they are right."""

    @abstractmethod
    def learn(self, frame: pd.DataFrame) -> None:
        """Learn from some rows."""

    @abstractmethod
    def learned(self) -> Fitted:
        """Return what was learned from all rows, by column, as JSON values."""

    @property
    def is_fitted(self) -> bool:
        """Return whether there is nothing left to learn."""
        return self.fitted is not None

    def finish(self) -> None:
        """Set `fitted` to what was learned."""
        self.fitted = self.learned()

    def of(self, name: str) -> Any:
        """Return what was learned about one column. Raise StepFailed when the pinned values do not name it."""
        fitted = self.fitted or {}
        if name not in fitted:
            raise StepFailed(f"step {self.label}: the pinned fitted values do not have the column {name!r}")
        return fitted[name]


def with_columns(frame: pd.DataFrame, columns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return the frame with some columns changed or added. `DataFrame.assign` cannot add a column named self."""
    changed = frame.copy(deep=False)
    for name, values in columns.items():
        changed[name] = values
    return changed


def require_a_column(label: str, before: pd.DataFrame, after: pd.DataFrame) -> None:
    """Raise NoColumnLeft when a step leaves no column of a table that had some."""
    if len(before.columns) and not len(after.columns):
        raise NoColumnLeft(f"step {label} leaves no column; keep at least one")


def fits_in_64_bits(value: float) -> bool:
    """Return whether a number, without its fraction, fits into a 64-bit integer column."""
    return -(2**63) <= value < 2**63


def is_text(values: pd.Series) -> bool:
    """Return whether a column holds text."""
    return isinstance(values.dtype, pd.StringDtype)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def is_scalar(value: Any) -> bool:
    """Return whether a value is a text, a boolean or a finite number."""
    return isinstance(value, str | bool) or is_number(value)


def python_value(value: Any) -> Any:
    """Return a column's value as a plain Python value, timestamps as text, as in contracts and receipts."""
    if isinstance(value, np.generic):
        value = value.item()
    return value.isoformat() if isinstance(value, pd.Timestamp) else value
