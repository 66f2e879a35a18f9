"""Replace rows of a file with corrected rows, one partition at a time, for all formats.

A cell changes only if its corrected text differs from the text in the quarantine file. All other cells keep their value
and type. A changed cell gets the value that a clean file would have had. In CSV this is text, and the CSV reader reads
the rows again. In formats with types, it is a value with the type of the column's other values if the text can be
converted to that type; otherwise it stays text, and is checked against the contract. Dropped rows are removed first, so
no later code sees them.
"""

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.contract.model import Column, Contract
from flows.refinery.read.columns import TEXT_TYPES, missing_texts, series_of
from flows.refinery.read.csv_reader import read_rows
from flows.refinery.read.header import DROP
from flows.refinery.read.partition import Limits, Partition, SourceFormat
from flows.refinery.repair.corrections import Corrections, CorrectionsUnusable, listed
from flows.refinery.validate.coercion import coerce
from flows.refinery.validate.column_text import as_text

# Strings that a typed format would store as numbers. "007" and "+1" would be stored as strings.
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,399})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_FLAGS = {"true": True, "false": False}


def corrected(
    partitions: Iterator[Partition], corrections: Corrections, contract: Contract, limits: Limits
) -> Iterator[Partition]:
    """Yield the partitions of a file with the corrections applied, and without the dropped rows.

    A row that could not be decoded becomes an ordinary row if it is corrected. Otherwise it stays a misfit.

    Raises:
        CorrectionsUnusable: the file lacks rows or columns that the corrections name; raised after the last partition.
    """
    overlay = _Overlay(corrections, contract, limits)
    for partition in partitions:
        yield from overlay.on(partition)
    overlay.require_all_done()


class _Overlay:
    def __init__(self, corrections: Corrections, contract: Contract, limits: Limits) -> None:
        self._corrections, self._contract, self._limits = corrections, contract, limits
        self._rows_left = set(corrections.rows)
        self._dropped = corrections.dropped
        self._columns = [name for name in corrections.columns if name != DROP]
        self._columns_left = {name for name in self._columns if name not in contract.columns}
        self._is_first = True
        self._found: SourceFormat | None = None  # the format of a CSV file, once its first partition is corrected

    def on(self, partition: Partition) -> Iterator[Partition]:
        """Yield a partition with its corrections applied. For a CSV file, it may be cut into several partitions."""
        self._columns_left.difference_update(map(str, partition.frame.columns))
        unread = {misfit.row_number for misfit in partition.misfits}
        there = self._rows_left & {*partition.row_numbers.tolist(), *unread}
        self._rows_left -= there
        dropped, unchanged = there & self._dropped, {number for number in there & unread if not self._is_filled(number)}
        here = sorted(there - dropped - unchanged)
        if dropped:
            partition = _without(partition, dropped)
        is_first, self._is_first = self._is_first, False
        if partition.source_format.type == "csv":
            # A correction in the first partition may have changed how the file's numbers are read.
            if here or dropped or self._found not in (None, partition.source_format):
                yield from self._on_texts(partition, here, is_first=is_first)
                return
        elif here:
            partition = self._on_values(partition, here)
        yield partition

    def _is_filled(self, number: int) -> bool:
        """Return whether the corrections have a value for a row. A row that could not be decoded has none if an earlier
        repair dropped it and a later repair restored it."""
        return any(self._corrections.rows[number].get(name) is not None for name in self._columns)

    def require_all_done(self) -> None:
        if self._rows_left:
            raise CorrectionsUnusable(f"the file has no {listed(self._rows_left)}")
        if self._columns_left:
            names = ", ".join(map(repr, sorted(self._columns_left)))
            raise CorrectionsUnusable(f"neither the file nor its contract has a column {names}")

    def _columns_of(self, frame: pd.DataFrame, here: Sequence[int]) -> list[str]:
        """Return the columns of a partition, followed by the columns that corrections to its rows add."""
        names = list(map(str, frame.columns))
        rows = [self._corrections.rows[number] for number in here]
        return names + [
            name for name in self._columns if name not in names and any(row.get(name) is not None for row in rows)
        ]

    # --- CSV ----------------------------------------------------------------------------------------------------------

    def _on_texts(self, partition: Partition, here: Sequence[int], *, is_first: bool) -> Iterator[Partition]:
        names = self._columns_of(partition.frame, here)
        rows = self._texts(partition, names)
        for number in here:
            rows[number] = self._corrected_texts(rows.get(number), names, number)
        numbers = np.array(sorted(rows), dtype=np.int64)
        misfits = [misfit for misfit in partition.misfits if misfit.row_number not in rows]
        source_format = partition.source_format if self._found is None else self._found
        given = self._contract.format
        marks = (given.decimal, given.thousands) if is_first else (source_format.decimal, source_format.thousands)
        texts = [rows[number] for number in numbers.tolist()]
        if not texts:  # all rows are dropped, so no separators can be detected
            yield replace(partition, source_format=source_format)
            return
        for piece in read_rows(names, texts, self._contract, source_format, marks, self._limits):
            if is_first:
                found = piece.source_format
                self._found = replace(source_format, decimal=found.decimal, thousands=found.thousands)
                is_first = False
            now = numbers[piece.row_numbers - 1]
            yield replace(piece, row_numbers=now, misfits=misfits, source_format=self._found or source_format)
            misfits = []

    def _texts(self, partition: Partition, names: Sequence[str]) -> dict[int, list[str]]:
        """Return the original strings of the decoded rows, by row number."""
        texts = partition.frame
        columns = []
        for name in names:
            if name in texts.columns:
                columns.append(texts[name].fillna(self._missing_mark(name)).tolist())
            else:
                columns.append([self._missing_mark(name)] * len(texts))
        return dict(zip(partition.row_numbers.tolist(), map(list, zip(*columns, strict=True)), strict=True))

    def _corrected_texts(self, written: Sequence[str] | None, names: Sequence[str], number: int) -> list[str]:
        given = self._corrections.rows[number]
        texts = []
        for place, name in enumerate(names):
            text = written[place] if written is not None else None
            if name in given and not (given[name] is None and text == ""):  # CSV writes None and "" alike
                text = given[name]
            texts.append(self._missing_mark(name) if text is None else text)
        return texts

    def _missing_mark(self, name: str) -> str:
        """Return a string that means a missing value in a column, or "" if there is none."""
        marks = missing_texts(self._contract, name)
        return "" if "" in marks or not marks else marks[0]

    # --- formats whose values have types ------------------------------------------------------------------------------

    def _on_values(self, partition: Partition, here: Sequence[int]) -> Partition:
        frame = partition.frame
        decoded = sorted({misfit.row_number for misfit in partition.misfits}.intersection(here))
        numbers = np.concatenate([partition.row_numbers, np.array(decoded, dtype=np.int64)])
        order = np.argsort(numbers)
        places = np.searchsorted(numbers[order], here)
        columns = {}
        for name in self._columns_of(frame, here):
            raw = frame[name] if name in frame.columns else pd.Series([None] * len(frame), dtype=object)
            columns[name] = self._column(name, raw, len(decoded), order, places, here)
        misfits = [misfit for misfit in partition.misfits if misfit.row_number not in decoded]
        return replace(partition, frame=pd.DataFrame(columns), row_numbers=numbers[order], misfits=misfits)

    def _column(
        self, name: str, raw: pd.Series, added: int, order: np.ndarray, places: np.ndarray, here: Sequence[int]
    ) -> pd.Series:
        """Return a column with its corrected cells, in the order of the file.

        Args:
            added: the number of corrected rows that could not be decoded. Before sorting, they follow the other rows.
            order: the indices that sort all rows into the order of the file.
            places: the positions of the corrected rows in that order.
            here: the row numbers of the corrected rows.
        """
        values, shown = _objects(raw, added, order), _objects(as_text(raw), added, order)
        rows = [self._corrections.rows[number] for number in here]
        changed: dict[int, str | None] = {}
        for place, row in zip(places.tolist(), rows, strict=True):
            given = row.get(name)
            if name in row and given != shown[place] and not (given is None and shown[place] == ""):
                changed[place] = None if given in missing_texts(self._contract, name) else given
        if not changed and not added:
            return raw
        others = [value for place, value in enumerate(values) if place not in changed and value is not None]
        read = self._reader_of(name, raw, others)
        for place, text in changed.items():
            values[place] = None if text is None else read(text)
        return _as_before(values, raw)

    def _reader_of(self, name: str, raw: pd.Series, others: Sequence[Any]) -> Callable[[str], Any]:
        """Return a function that converts a string to the type of the column's other values, if possible."""
        column = self._contract.columns.get(name)
        if pd.api.types.is_datetime64_any_dtype(raw.dtype):
            return lambda text: _moment(text, column, raw)
        if (column is not None and column.type in TEXT_TYPES) or any(isinstance(value, str) for value in others):
            return lambda text: text
        kinds = {type(value) for value in others}
        if kinds == {bool}:
            return lambda text: _FLAGS.get(text.strip().lower(), text)
        if kinds in ({dt.date}, {dt.time}):
            return partial(_day_or_time, kinds.pop())
        return _natural if kinds <= {int, float} else lambda text: text


def _without(partition: Partition, dropped: Set[int]) -> Partition:
    """Return a partition without the dropped rows. A column of mixed types gets the type of the values that remain."""
    stays = ~np.isin(partition.row_numbers, list(dropped))
    frame = partition.frame[stays].reset_index(drop=True)
    for name in [name for name in frame if pd.api.types.is_object_dtype(frame[name])]:
        frame[name] = series_of(_objects(frame[name], 0, np.arange(len(frame))), ())
    misfits = [misfit for misfit in partition.misfits if misfit.row_number not in dropped]
    return replace(partition, frame=frame, row_numbers=partition.row_numbers[stays], misfits=misfits)


def _objects(column: pd.Series, added: int, order: np.ndarray) -> list[Any]:
    """Convert a column to Python values, with None for missing values. Append `added` missing values, and return all
    values in the given order."""
    values = [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
    values += [None] * added
    return [values[place] for place in order]


def _natural(text: str) -> Any:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _day_or_time(kind: type[dt.date] | type[dt.time], text: str) -> Any:
    try:
        return kind.fromisoformat(text.strip())
    except ValueError:
        return text


def _moment(text: str, column: Column | None, raw: pd.Series) -> Any:
    """Convert a string to a timestamp if it has the form in the quarantine file or the contract's format. Return other
    strings unchanged."""
    written = [None] if column is None or column.format is None else [None, column.format]
    for code in written:
        read = coerce(pd.Series([text], dtype="str"), Column(type="timestamp", format=code))
        if not read.unreadable[0]:
            moment = read.values[0]
            zone = getattr(raw.dtype, "tz", None)
            return moment if zone is None else moment.tz_localize("UTC").tz_convert(zone)
    return text


def _as_before(values: Sequence[Any], raw: pd.Series) -> pd.Series:
    """Create a column from values. It has the dtype of the original column `raw` if all values fit."""
    is_moment = pd.api.types.is_datetime64_any_dtype(raw.dtype)
    if is_moment and not any(isinstance(value, str) for value in values):
        return pd.Series([pd.NaT if value is None else value for value in values], dtype=raw.dtype)
    return series_of(values, ())
