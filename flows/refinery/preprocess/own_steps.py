"""A dataset's own steps: functions of its steps.py, DataFrame -> DataFrame, on all rows at once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.preprocess.step_base import StepFailed

_HERE = Path(__file__).parent


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
            result = self._function(given.copy(deep=False), **self._arguments)  # pandas copies on write
        except MemoryError:
            raise  # the task's fault, not the file's
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
        """Return the first row that fails by itself, found by bisection; None if no single row does."""
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
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 as above
            return True
        return False


def load_own_steps(path: Path) -> ModuleType:
    """Execute a dataset's steps.py. Raise StepFailed when it raises."""
    spec = importlib.util.spec_from_file_location(f"sluice_steps_{path.parent.name}", path)
    if spec is None or spec.loader is None:
        raise StepFailed(f"{path.name} of {path.parent.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 it is the user's module
        raise StepFailed(
            f"{path.name} of {path.parent.name} raised {type(error).__name__} when it was imported"
        ) from None
    return module


def _row_numbers_of(result: pd.DataFrame, row_numbers: pd.Index) -> pd.Index:
    """Return the row numbers of a function's result; -1 where the function changed the index."""
    index = result.index
    if index.is_unique and pd.api.types.is_integer_dtype(index.dtype):
        values = index.to_numpy()
        if not len(values) or (values.min() >= 0 and values.max() < len(row_numbers)):
            return row_numbers[values]
    return pd.Index(np.full(len(result), -1, dtype=np.int64))


def _place_in_function(error: Exception) -> str:
    """Return the line of the user's code that raised."""
    trace = error.__traceback__
    line = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        written_in = Path(code.co_filename)
        if written_in.name == "steps.py" and written_in.parent != _HERE:
            line = f" in steps.py, line {trace.tb_lineno}"
        trace = trace.tb_next
    return line
