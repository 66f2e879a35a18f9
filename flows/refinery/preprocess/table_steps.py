"""Built-in steps on whole columns and rows. They rename, select and drop columns, strip text, and drop rows that are
duplicates or have missing values."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import count
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from flows.refinery.preprocess.step_base import Names, Step, StepFailed, is_text, with_columns
from flows.refinery.validate.uniqueness import HashCollector, Rows, Take, duplicated_rows


class CleanColumnNames(Step):
    """Changes column names to snake_case: removes accents, replaces all characters except letters and digits with _,
    and adds a number, such as _2, to a name that is already taken."""

    name = "clean_column_names"

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.set_axis(list(self.new_names(list(frame.columns)).values()), axis=1)

    def new_names(self, columns: Sequence[str]) -> dict[str, str]:
        names: dict[str, str] = {}
        taken: set[str] = set()
        for column in columns:
            clean = clean_name(str(column))
            numbered = (f"{clean}_{number}" for number in count(2))
            unique = clean if clean not in taken else next(name for name in numbered if name not in taken)
            taken.add(unique)
            names[column] = unique
        return names


@lru_cache(maxsize=1_000)
def clean_name(name: str) -> str:
    """Convert a column name to snake_case: "Order ID (€)" becomes order_id, "unitPrice" becomes unit_price, and "Größe"
    becomes grosse. Letters and digits of other scripts are kept, because names in such scripts would otherwise be
    empty."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", _plain(name))
    text = re.sub("_+", "_", text).strip("_").lower()
    return f"_{text}" if text[:1].isdigit() else text or "column"


def _plain(name: str) -> str:
    """Remove the accents of Latin letters in a name, keep the letters and digits of all scripts, and replace every
    other character with _."""
    plain = ""
    for character in unicodedata.normalize("NFKC", name.replace("ß", "ss")):
        kind = unicodedata.category(character)[0]
        base = unicodedata.normalize("NFKD", character)[0]
        if base.isascii() and base.isalnum():
            plain += base
        elif kind == "M" and plain[-1:].isascii():
            continue  # an accent on a Latin letter
        else:
            plain += character if kind in "LMN" else "_"
    return plain


class StripWhitespace(Step):
    """Removes white space at both ends of strings, in `columns` or, by default, in every text column."""

    name = "strip_whitespace"
    columns: Names | None = None

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        if self.columns:
            self.require(frame, self.columns)
        names = self.columns or [name for name in frame.columns if is_text(frame[name])]
        return with_columns(frame, {name: frame[name].str.strip() for name in names if is_text(frame[name])})


class Rename(Step):
    """Renames columns; `columns` maps each old name to its new name."""

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
    """Keeps only the columns in `columns`, in that order."""

    name = "select"
    columns: Names

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.columns)
        return frame[list(self.columns)]


class DropColumns(Step):
    """Removes the columns in `columns`."""

    name = "drop_columns"
    columns: Names

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.columns)
        return frame.drop(columns=list(self.columns))


class DropMissing(Step):
    """Drops rows in which any value (`how: any`) or every value (`how: all`) of the columns in `subset` is missing; the
    default is all columns."""

    name = "drop_missing"
    subset: Names | None = None
    how: Literal["any", "all"] = "any"

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.require(frame, self.subset or ())
        return frame.dropna(subset=list(self.subset) if self.subset else None, how=self.how)


class DropDuplicates(Step):
    """Drops rows that have equal values in the columns in `subset` (by default, in all columns), except the first of
    them (`keep: first`) or the last (`keep: last`); `keep: none` drops all of them."""

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
        """Return the columns that decide whether rows are duplicates."""
        self.require(frame, self.subset or ())
        keys: pd.DataFrame = frame[list(self.subset)] if self.subset else frame
        return keys

    def find(self, frames: Callable[[], Iterator[pd.DataFrame]], collector: HashCollector) -> None:
        """Find the rows that `apply` must drop.

        Args:
            frames: returns all rows, in order. The values of rows with equal hashes are compared.
            collector: must already have the hashes of the keys of all rows.
        """

        def keys() -> Iterator[Take]:
            position = 0
            for frame in frames():
                yield partial(_taken, self.keys(frame), position)
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


def _taken(keys: pd.DataFrame, position: int, places: np.ndarray) -> Rows:
    return keys.iloc[places], position + places
