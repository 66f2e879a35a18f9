"""Custom preprocessing steps: functions in a dataset's steps.py, each of which takes a DataFrame and returns one.

    python -m flows.refinery.preprocess.own_steps CONTRACTS

imports the steps.py of every dataset in the folder CONTRACTS, and exits with code 1 if one cannot be imported. The
build of the container image runs it.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.errors import TransientError
from flows.refinery.preprocess.step_base import StepFailed, with_columns
from flows.refinery.validate.coercion import holds_only

_HERE = Path(__file__).parent


class StepsNotImportable(TransientError):
    """A dataset's steps.py, or a module that it needs, cannot be imported.

    The deployment is broken, not the file. The upload stays in the queue and is tried again until it reaches the
    queue's limit of attempts; then it moves to the dead-letter queue. Deploy steps that can be imported, then redrive.
    """


class OwnStep:
    """A custom step: a function in the dataset's steps.py. It gets a DataFrame with the rows of one partition, or with
    all rows if it is marked with @whole_table, and returns a DataFrame.

    Attributes:
        needs_whole_table: whether the function is marked with @whole_table.
    """

    def __init__(self, label: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self.label = label
        self.needs_whole_table = bool(getattr(function, "needs_whole_table", False))
        self._function = function
        self._arguments = dict(arguments)
        self._types: dict[Any, Any] | None = None  # the types of the columns in the function's first result
        self._kinds: dict[str, str] | None = None

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Call the function, and return its result with the row numbers as its index.

        Raises:
            StepFailed: the function raised an exception, did not return a DataFrame, returned two columns of the same
                name or more rows than it got, or returned other columns or types than for earlier rows.
            StepsNotImportable: the function raised ImportError.
        """
        row_numbers = frame.index
        given = frame.reset_index(drop=True)
        try:
            result = self._function(given.copy(deep=False), **self._arguments)  # pandas copies on write
        except MemoryError:
            raise  # the task has too little memory; the file is not to blame
        except ImportError as error:
            raise _not_importable(f"step {self.label}", error) from None
        except (Exception, SystemExit) as error:  # noqa: BLE001 the user's function may raise anything
            raise self._failure(error, given, row_numbers) from None
        if not isinstance(result, pd.DataFrame):
            raise StepFailed(f"step {self.label} returned {type(result).__name__}; it must return a DataFrame")
        if len(result) > len(given):
            raise StepFailed(f"step {self.label} returned {len(result)} rows for {len(given)}; it must not add rows")
        if not all(isinstance(name, str) for name in result.columns):
            result = result.set_axis(pd.Index(map(str, result.columns)), axis=1)
        if result.columns.has_duplicates:
            raise StepFailed(f"step {self.label} returned two columns of the same name")
        categories = [str(name) for name, dtype in result.dtypes.items() if isinstance(dtype, pd.CategoricalDtype)]
        if categories:
            result = with_columns(result, {name: _without_categories(result[name]) for name in categories})
        result = self._as_before(result)
        return result.set_axis(_row_numbers_of(result, row_numbers), axis=0)

    def kinds_after(self, kinds: Mapping[str, str], result: pd.DataFrame) -> dict[str, str]:
        """Return the columns, each with "date" or "time", that are still published as dates or times after this step.
        The function's first result determines them. Raise StepFailed if a later result has other values in such a
        column."""
        if self._kinds is None:
            there = {name: kind for name, kind in kinds.items() if name in result.columns}
            self._kinds = {name: kind for name, kind in there.items() if holds_only(kind, result[name])}
            return self._kinds
        for name, kind in self._kinds.items():
            if not holds_only(kind, result[name]):
                raise self._differs(f"more than {kind}s in the column {name!r}, and only {kind}s")
        return self._kinds

    def _as_before(self, result: pd.DataFrame) -> pd.DataFrame:
        """Convert a result of the function to the column types of its first result. Raise StepFailed if the columns
        differ, or if their values cannot be converted without changing them."""
        types = {
            str(name): pd.api.types.infer_dtype(result[name]) if pd.api.types.is_object_dtype(dtype) else dtype
            for name, dtype in result.dtypes.items()
        }
        self._types = self._types or types
        if list(types) != list(self._types):
            raise self._differs("other columns")
        for name, before in self._types.items():
            if (found := types[name]) != before:
                cast = _cast(result[name], before)
                if cast is None:
                    raise self._differs(f"{found} in the column {name!r}, and {before}")
                result = with_columns(result, {name: cast})
        return result

    def _differs(self, how: str) -> StepFailed:
        return StepFailed(
            f"step {self.label} returned {how} for earlier rows of the file. It gets the rows in pieces, so it must"
            " return the same columns and types for any rows; if it needs all rows at once, mark it with @whole_table"
        )

    def _failure(self, error: BaseException, given: pd.DataFrame, row_numbers: pd.Index) -> StepFailed:
        where = _place_in_function(error)
        first = self._first_failing_row(given)
        row = "" if first is None else f"; the first row that it fails on is row {row_numbers[first]}"
        return StepFailed(f"step {self.label} raised {type(error).__name__}{where}{row}")

    def _first_failing_row(self, given: pd.DataFrame) -> int | None:
        """Return the position of the first row on which the function fails, by bisection. Return None if bisection does
        not end at a single row."""
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
        except (Exception, SystemExit):  # noqa: BLE001 as above
            return True
        return False


def load_own_steps(path: Path) -> ModuleType:
    """Import a dataset's steps.py from its path. Raise StepsNotImportable if the import fails."""
    what = f"{path.name} of {path.parent.name}"
    spec = importlib.util.spec_from_file_location(f"sluice_steps_{path.parent.name}", path)
    if spec is None or spec.loader is None:
        raise StepsNotImportable(f"{what} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 it is the user's module
        raise _not_importable(what, error) from None
    return module


def _not_importable(what: str, error: BaseException) -> StepsNotImportable:
    if isinstance(error, ModuleNotFoundError):
        return StepsNotImportable(
            f"{what} needs the module {error.name!r}, which is not installed: add its package to"
            " flows/contracts/requirements.txt, then run `make setup` here, and `sluice deploy` for AWS"
        )
    name = f" of {error.name!r}" if isinstance(error, ImportError) and error.name else ""
    return StepsNotImportable(
        f"{what}: its import{name} raised {type(error).__name__}{_place_in_function(error)}; correct it, and deploy it"
    )


def _without_categories(values: pd.Series) -> pd.Series:
    """Convert a categorical column to the type of its values, because the categories can differ between partitions."""
    dtype: Any = values.cat.categories.dtype
    if isinstance(dtype, pd.IntervalDtype):  # from pd.cut
        return values.cat.rename_categories(str).astype("str")
    nullable = {"i": "Int64", "u": "UInt64", "b": "boolean"}
    return values.astype(nullable.get(dtype.kind, dtype))


def _cast(values: pd.Series, dtype: Any) -> pd.Series | None:
    """Convert values to another dtype. Return None if that would change them."""
    if isinstance(dtype, str):  # Python objects
        return values.astype(object) if values.isna().all() else None
    try:
        cast = values.astype(dtype)
        back = cast.astype(values.dtype)  # because pandas compares integers with floats as floats
        is_same = (back == values) | (back.isna() & values.isna())
    except (TypeError, ValueError):
        return None
    return cast if is_same.all() else None


def _row_numbers_of(result: pd.DataFrame, row_numbers: pd.Index) -> pd.Index:
    """Return the row numbers, in the source file, of the rows that a custom function returned. If the function has
    replaced the index, they are unknown, and all are -1."""
    index = result.index
    if index.equals(pd.RangeIndex(len(row_numbers))):
        return row_numbers
    if index.is_unique and pd.api.types.is_integer_dtype(index.dtype):
        values = index.to_numpy()
        if not len(values) or (values.min() >= 0 and values.max() < len(row_numbers)):
            return row_numbers[values]
    return pd.Index(np.full(len(result), -1, dtype=np.int64))


def _place_in_function(error: BaseException) -> str:
    """Return the line in steps.py that raised an error, in the form " in steps.py, line 12", or "" if none did."""
    trace = error.__traceback__
    line = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        written_in = Path(code.co_filename)
        if written_in.name == "steps.py" and written_in.parent != _HERE:
            line = f" in steps.py, line {trace.tb_lineno}"
        trace = trace.tb_next
    return line


def main(contracts: Path) -> int:
    """Import the steps.py of every dataset in a folder, print the errors, and return the exit code."""
    faults = []
    for path in sorted(contracts.glob("*/steps.py")):
        try:
            load_own_steps(path)
        except StepsNotImportable as error:
            faults.append(str(error))
    sys.stderr.write("".join(f"StepsNotImportable: {fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
