"""Profile the columns of a sample file. proposal.py proposes a contract from the profile."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.contract.model import Column, ColumnType
from flows.refinery.propose.compound_keys import compound_key
from flows.refinery.propose.file_format import FoundFormat, find_format, read_sample
from flows.refinery.propose.identifiers import identifier_regex
from flows.refinery.propose.meanings import words_of
from flows.refinery.propose.thousands import with_thousands
from flows.refinery.read.csv_numbers import CODE, MANY_DIGITS, MARKED, is_ambiguous_number, is_kept_by_float
from flows.refinery.read.partition import SourceFormat
from flows.refinery.read.rejections import LayoutUnfit
from flows.refinery.validate.coercion import coerce
from flows.refinery.validate.column_text import as_text
from flows.refinery.words import EXACT_FLOAT, counted

MAX_DISTINCT = 50  # the maximum number of distinct values that are listed
_TEXTS_FOR_SHAPE = 5_000
_HEAD_ROWS = 200  # enough to exclude most types before a whole column is tried

OnProgress = Callable[[str], None]


# Strings that mean a missing value in a column whose other values are numbers, dates or flags.
MISSING_MARKS = frozenset(
    {
        *("NA", "N/A", "n/a", "N.A.", "n.a.", "#N/A", "<NA>", "NaN", "nan", "NULL", "Null", "null", "None", "none"),
        *("\\N", "?", "-", "--", "."),
    }
)
_DAY_FIRST, _MONTH_FIRST = ("%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S"), ("%m/%d/%Y", "%m/%d/%Y %H:%M")
_DATE_FORMATS = ("%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y")
_TIMESTAMP_FORMATS = tuple(
    f"{day} {time}" for day in ("%d.%m.%Y", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y") for time in ("%H:%M", "%H:%M:%S")
)
_COMPACT_DATE = "%Y%m%d"
_COMPACT_DAY = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])")
_DATE_WORDS = frozenset({"date", "day", "datum", "dt", "ymd", "yyyymmdd", "dob", "birthday"})
_MIN_COMPACT_DATES = 10  # if this many different numbers are all valid dates, it is no coincidence, whatever the name
_PLAIN_TYPES: tuple[ColumnType, ...] = ("integer", "number", "boolean", "date", "timestamp", "time", "json")
_CANDIDATES: tuple[Column, ...] = (
    *(Column(type=plain) for plain in _PLAIN_TYPES),
    *(Column(type="date", format=written) for written in _DATE_FORMATS),
    *(Column(type="timestamp", format=written) for written in _TIMESTAMP_FORMATS),
    Column(type="date", format=_COMPACT_DATE),
)
_AS_TEXT = Column(type="string")
_TWO_READINGS = (
    "numbers whose separator may be for decimals or for thousands: write `decimal` or `thousands` under format"
)
_MYSQL_NULL = "\\N"
_MORE_THAN_VALUE = re.compile(f"{MARKED}|{CODE}")
_DECIMAL = re.compile(r"[+-]?[0-9]*[.,][0-9]+([eE][+-]?[0-9]{1,3})?|[+-]?[0-9]+[eE][+-]?[0-9]{1,3}")
_EXPONENT, _POINT = re.compile(r"[+-]?[1-9]e[0-9]{1,2}"), re.compile(r"[0-9][.,][0-9]")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_ISO_BEGINNING = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_THOUSANDS_MARK = re.compile(r"[,.\s](?=[0-9]{3}(?:[,.\s]|$))")
_MAX_EXACT_DIGITS = 15
_NATIVE = ("integer", "number", "boolean")
_FLAGS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})


@dataclass(frozen=True)
class ColumnProfile:
    """A summary of the values of one column, read as the type that fits them."""

    name: str
    column: Column  # the type that fits, with the format of its values and the strings that mean "missing"
    rows: int  # the number of the file's rows that could be decoded
    missing: int  # the number of these rows without a value in this column
    low: Any = None  # the minimum and maximum of numbers, dates and timestamps
    high: Any = None
    # the distinct values with their counts, most frequent first; None if there are more than MAX_DISTINCT
    values: tuple[tuple[Any, int], ...] | None = None
    is_unique: bool = False  # whether all values are different
    may_be_clock: bool = False  # whether the last two digits of every number are below 60, as in 1430 for 14:30
    regex: tuple[str, str] | None = None  # a regex that the first strings match, and a description of them
    note: str = ""  # a remark on the choice of the type


@dataclass(frozen=True)
class FileProfile:
    """A summary of the content of a sample file."""

    source_format: SourceFormat
    rows: int  # all rows of the file, including those that could not be decoded
    misfits: dict[str, int]  # the number of rows that could not be decoded, by reason
    columns: tuple[ColumnProfile, ...]
    found: FoundFormat  # the options for `format` that are not detected in the file
    key: tuple[str, ...] = ()  # two or three columns whose combined values are unique, if no single column is


def profile_file(path: Path, on_progress: OnProgress) -> FileProfile:
    """Profile a file. The file is read several times: to detect its format, to find the columns' types, and to look at
    their values. `on_progress` is called regularly with a description of the current activity. Raise FileRejected if
    the file cannot be read as a table."""
    on_progress("detecting the format")
    found = with_thousands(path, find_format(path))
    names, source_format = _header(path, found)
    choices = {name: _TypeChoice(name) for name in names}
    # The columns of CSV are read as text, and their types are found here; the other formats have types.
    declared = dict.fromkeys(names, _AS_TEXT) if source_format.type == "csv" else {}
    rows = 0
    for partition in read_sample(path, found, declared):
        rows += partition.rows_in
        on_progress(f"finding the types: {rows:,} rows")
        for name in partition.frame.columns:
            choices[str(name)].add(partition.frame[name], source_format)
    chosen = {name: choice.decide() for name, choice in choices.items()}
    columns = {name: _marked(column, choices[name].marks, source_format) for name, (column, _) in chosen.items()}
    stats = {name: _Stats(column) for name, column in columns.items()}
    all_rows, rows, misfits = rows, 0, Counter[str]()
    for partition in read_sample(path, found, columns):
        rows += partition.rows_in
        on_progress(f"looking at the values: {rows:,} of {all_rows:,} rows")
        misfits.update(misfit.reason for misfit in partition.misfits)
        source_format = partition.source_format
        for name, stat in stats.items():
            if name in partition.frame.columns:
                stat.add(partition.frame[name], source_format)
    decoded = rows - misfits.total()
    on_progress("looking for keys")
    key = compound_key({name: stat.hashes for name, stat in stats.items() if stat.may_be_in_key(decoded)})
    notes = {name: chosen[name][1] or _kept_marks(columns[name], choices[name], source_format) for name in names}
    profiles = tuple(stat.profile(name, decoded, notes[name]) for name, stat in stats.items())
    return FileProfile(source_format, rows, dict(misfits), profiles, found, key)


def _kept_marks(column: Column, choice: _TypeChoice, source_format: SourceFormat) -> str:
    """Return a note on strings in a text column that often mean "missing", and on how to declare them missing; "" if
    there are none."""
    kept = sorted(choice.marks - {_MYSQL_NULL})
    if column.type != "string" or not kept or source_format.type == "parquet":
        return ""
    counts = ", ".join(f"{counted(choice.marked[mark], 'time')} {mark}" for mark in kept)
    marks = ", ".join(f"'{mark}'" for mark in ["", *sorted(choice.marks)])
    return f"{counts}: kept as text; if it means missing, add missing_values: [{marks}]"


def _marked(column: Column, marks: set[str], source_format: SourceFormat) -> Column:
    """Return the column with the strings `marks` declared as missing. In a text column, only MySQL's string for NULL is
    declared, because the others may be values: NA may be Namibia."""
    if column.type == "string":
        marks = marks & {_MYSQL_NULL}
    if not marks or source_format.type == "parquet":  # Parquet has real nulls
        return column
    return column.model_copy(update={"missing_values": ("", *sorted(marks))})


def _header(path: Path, found: FoundFormat) -> tuple[list[str], SourceFormat]:
    """Return the file's columns and its format. Here no column is declared as text, because the reader does not look
    for decimal and thousands separators in text columns."""
    names: dict[str, None] = {}
    source_format = SourceFormat(type="csv")
    not_text = dict.fromkeys(found.columns or (), Column(type="number"))
    for partition in read_sample(path, found, not_text):
        names.update(dict.fromkeys(map(str, partition.frame.columns)))
        source_format = partition.source_format
        if source_format.type not in ("json", "jsonl"):
            break  # the other formats list all columns at the beginning
    if source_format.layout_fault:
        raise LayoutUnfit(f"{source_format.layout_fault} in a contract")
    return list(names), source_format


# --- the type ---------------------------------------------------------------------------------------------------------


@dataclass
class _TypeChoice:
    """The types that fit all values seen so far in a column, from the narrowest to the widest."""

    name: str  # of the column
    candidates: list[Column] = field(default_factory=lambda: list(_CANDIDATES))
    # strings that usually mean "missing", with their counts; in a text column they are values
    marked: Counter[str] = field(default_factory=Counter)
    days: set[str] = field(default_factory=set)  # some of its numbers that may be dates, such as 20240131
    has_values: bool = False
    flags: set[str] = field(default_factory=set)  # the values in lower case, while they may be a pair of flags
    has_two_readings: bool = False  # whether the values are numbers such as 1.250, which can be read in two ways

    @property
    def marks(self) -> set[str]:
        """Return the strings in the column that usually mean "missing"."""
        return set(self.marked)

    def add(self, raw: pd.Series, source_format: SourceFormat) -> None:
        """Exclude the types that do not fit all of these values."""
        if pd.api.types.is_object_dtype(raw.dtype) or isinstance(raw.dtype, pd.StringDtype):
            marked = raw.isin(MISSING_MARKS)
            if marked.any():
                self.marked.update(map(str, raw[marked]))
                raw = raw[~marked]
        raw = raw.dropna()
        if raw.empty:
            return
        self.has_values = True
        for rows in (raw.head(_HEAD_ROWS), raw):
            self.candidates = [column for column in self.candidates if self._fits(column, rows, source_format)]
            if len(raw) <= _HEAD_ROWS:
                break
        if self.has_two_readings:
            numbers = coerce(raw.reset_index(drop=True), Column(type="number"), source_format)
            self.has_two_readings = not numbers.unreadable.any()

    def _fits(self, column: Column, raw: pd.Series, source_format: SourceFormat) -> bool:
        if source_format.type != "csv" and column.type in _NATIVE and any(isinstance(value, str) for value in raw):
            return False  # in a format that has types, numbers were written as strings on purpose
        if not _is_natural(column, raw):
            return False
        if column.type == "boolean" and not self._are_flags(raw):
            return False
        if column.format == _COMPACT_DATE and not self._are_days(raw):
            return False
        if not _may_be_written(column.format, raw):
            return False
        raw = raw.reset_index(drop=True)
        if coerce(raw, column, source_format).unreadable.any():
            return False
        is_doubtful = column.type in ("integer", "number") and not source_format.is_decimal_proven
        if is_doubtful and any(map(is_ambiguous_number, as_text(raw).dropna().unique())):
            self.has_two_readings = True
            return False
        return True

    def _are_flags(self, raw: pd.Series) -> bool:
        """Return whether all values so far belong to one pair of flags, such as yes and no."""
        if not pd.api.types.is_bool_dtype(raw.dtype):
            self.flags |= {text.strip().lower() for text in as_text(raw).unique()}
        return any(self.flags <= pair for pair in _FLAGS)

    def _are_days(self, raw: pd.Series) -> bool:
        texts = as_text(raw).unique()
        self.days.update(texts[:_MIN_COMPACT_DATES])
        return all(map(_COMPACT_DAY.fullmatch, texts))

    def _means_days(self) -> bool:
        return bool(_DATE_WORDS & set(words_of(self.name))) or len(self.days) >= _MIN_COMPACT_DATES

    def decide(self) -> tuple[Column, str]:
        """Return the type to propose, and a note if the values can be read in two ways, otherwise "". The type is the
        narrowest one that fits, a date if the numbers mean days, or text if no type is certain."""
        # A column whose only value is a single letter, such as y, is not read as flags; one with only `yes` is.
        is_half_a_pair = len(self.flags) == 1 and len(next(iter(self.flags))) == 1
        candidates = [column for column in self.candidates if column.type != "boolean" or not is_half_a_pair]
        if not self.has_values or not candidates:
            return _AS_TEXT, _TWO_READINGS if self.has_two_readings else ""
        if candidates[-1].format == _COMPACT_DATE and self._means_days():
            return candidates[-1], ""
        if candidates[0].format == _COMPACT_DATE:
            return _AS_TEXT, ""
        written = {column.format for column in candidates}
        if candidates[0].format in _DAY_FIRST and written & set(_MONTH_FIRST):
            return _AS_TEXT, "dates, but no value shows whether day or month comes first: set type and format"
        return candidates[0], ""


def _is_natural(column: Column, raw: pd.Series) -> bool:
    """Return whether a person would choose this type for the values, if they can be converted to it."""
    kind = column.type
    dtype = raw.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return kind == "boolean"
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return kind in ("date", "timestamp") and column.format is None
    if pd.api.types.is_numeric_dtype(dtype) or all(type(value) in (int, float) for value in raw):
        is_number = kind == "integer" or (kind == "number" and _are_kept_by_float(raw))
        return is_number or column.format == _COMPACT_DATE
    return _is_natural_text(column, as_text(raw))


def _may_be_written(time_format: str | None, raw: pd.Series) -> bool:
    """Return whether a column may be in a time format: its first string has a digit and the format's punctuation.
    Return True if there is no format or no string."""
    text = next((value.casefold() for value in raw if isinstance(value, str) and value.strip()), None)
    if time_format is None or text is None:
        return True
    marks = set(re.sub("%.", "", time_format)) - {" "}
    return marks <= set(text) and any(map(str.isdecimal, text))


def _are_kept_by_float(numbers: pd.Series) -> bool:
    return pd.api.types.is_float_dtype(numbers.dtype) or all(
        isinstance(number, float) or abs(int(number)) <= EXACT_FLOAT for number in numbers
    )


def _is_natural_text(column: Column, texts: pd.Series) -> bool:
    if column.type == "integer":
        plain = (_THOUSANDS_MARK.sub("", text.strip()) for text in texts)
        return not any(map(_is_code, texts)) and all(map(_WHOLE.fullmatch, plain))
    if column.type == "number":
        codes = [text.strip() for text in texts if _is_code(text)]
        # Among decimal numbers, 1e3 is a number: old versions of R's readr write 1000 like this. 12E3 is always a code.
        return not codes or (all(map(_EXPONENT.fullmatch, codes)) and any(map(_POINT.search, texts)))
    if column.type == "json":
        return all(text.lstrip()[:1] in ("{", "[") for text in texts)
    if column.type in ("date", "timestamp") and column.format is None:
        # ISO 8601 also allows a year or a week alone, which most people read as a number or a name.
        return all(map(_ISO_BEGINNING.match, texts))
    return True


def _is_code(text: str) -> bool:
    """Return whether a numeric-looking string is an identifier rather than a quantity: it has leading zeros or a plus
    sign, looks like 12E3, or has more digits than a float keeps."""
    stripped = text.strip()
    if _MORE_THAN_VALUE.fullmatch(stripped):
        return True
    if re.search(MANY_DIGITS, stripped) and _DECIMAL.fullmatch(stripped):
        return not is_kept_by_float(stripped.replace(",", "."))
    return bool(_WHOLE.fullmatch(stripped)) and len(stripped.lstrip("+-")) > _MAX_EXACT_DIGITS


# --- the values -------------------------------------------------------------------------------------------------------


class _Stats:
    """Collects statistics on the values of a column."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._values_seen = 0
        self._low: Any = None
        self._high: Any = None
        self._counts: Counter[Any] | None = Counter()
        self._hashes: list[np.ndarray] = []
        self._may_be_clock = column.type in ("integer", "number")
        self._texts: list[str] = []

    def add(self, raw: pd.Series, source_format: SourceFormat) -> None:
        values = coerce(raw, self._column, source_format).values.dropna()
        if values.empty:
            return
        self._values_seen += len(values)
        self._hashes.append(pd.util.hash_pandas_object(values, index=False).to_numpy())
        if self._column.type in ("integer", "number", "date", "timestamp"):
            low, high = values.min(), values.max()
            self._low = low if self._low is None else min(self._low, low)
            self._high = high if self._high is None else max(self._high, high)
        if self._may_be_clock:
            self._may_be_clock = bool(((values % 100) < 60).all())
        if self._counts is not None:
            for value, count in values.value_counts().head(MAX_DISTINCT + 1).items():
                self._counts[value] += int(count)
            if len(self._counts) > MAX_DISTINCT:
                self._counts = None
        if self._column.type == "string" and len(self._texts) < _TEXTS_FOR_SHAPE:
            self._texts += map(str, values.head(_TEXTS_FOR_SHAPE))

    @property
    def hashes(self) -> np.ndarray:
        """Return the hash of every value, in the order of the rows."""
        return np.concatenate(self._hashes) if self._hashes else np.empty(0, dtype=np.uint64)

    def may_be_in_key(self, rows: int) -> bool:
        """Return whether the column may be part of a key: every row has a value of a type that keys have."""
        return self._values_seen == rows and self._column.type in ("string", "integer", "date", "timestamp")

    def profile(self, name: str, rows: int, note: str) -> ColumnProfile:
        hashes = self.hashes
        return ColumnProfile(
            name=name,
            column=self._column,
            rows=rows,
            missing=rows - self._values_seen,
            low=self._low,
            high=self._high,
            values=tuple(self._counts.most_common()) if self._counts is not None else None,
            is_unique=len(np.unique(hashes)) == len(hashes),
            may_be_clock=self._may_be_clock,
            regex=identifier_regex(self._texts),
            note=note,
        )
