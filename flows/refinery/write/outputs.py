"""Write the Parquet or CSV files that are published, in folders if the contract declares `partition_by`. The same
frames always give the same bytes."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pandas as pd
import pyarrow as pa

from flows.refinery.contract.model import OutputOptions
from flows.refinery.errors import FileRejected
from flows.refinery.output_files import WAITING_BYTES, FileSeries, OutputFile, TakeAway
from flows.refinery.part_seconds import PartSeconds
from flows.refinery.validate.coercion import to_arrow
from flows.refinery.validate.column_text import arrow_array, pandas_column

MAX_FOLDERS = 500  # each folder needs an open file, and becomes an object in S3
_ALL_WAITING_BYTES = 32 << 20  # of the tables for all folders
_OPEN_FILES = 4  # unfinished files may together take as much disk space as this many full files
# S3 limits a whole object key to 1,024 bytes: docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_MAX_FOLDERS_CHARACTERS = 800  # of all folders of a row
_MAX_FOLDER_CHARACTERS = 150  # of a value
_DAY = re.compile(r"day\((.+)\)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # the folder of missing values in Hive, Spark and Athena


class OutputImpossible(FileRejected):
    """The clean rows cannot be written as the contract declares. Either a column in output.partition_by does not exist,
    has no dates or has too many or too long values, or no other column is left. The other possible cause is a custom
    step that returned values of a type that the output format does not have, or of a different type than for earlier
    rows."""


class OutputWriter:
    """Writes frames in the form that the contract's `output` section declares.

    Args:
        folder: the local folder in which the files are written.
        kinds: the columns to write as dates or times, each with "date" or "time". Their dtypes in pandas do not show
            this.
        take_away: receives each file that is finished before `close`.

    Attributes:
        columns: the names of the columns that were written, including those in folder names.
    """

    def __init__(
        self,
        output: OutputOptions,
        folder: Path,
        kinds: Mapping[str, str],
        seconds: PartSeconds,
        take_away: TakeAway,
    ) -> None:
        self.columns: tuple[str, ...] = ()
        self._output, self._folder, self._kinds = output, folder, kinds
        self._seconds, self._take_away = seconds, take_away
        self._schema: pa.Schema | None = None
        self._files: dict[str, FileSeries] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Delete the files on the disk if an error ends the block."""
        if kind is not None:
            for files in self._files.values():
                files.discard()

    def write(self, frame: pd.DataFrame) -> None:
        """Write some rows. All frames must have the same columns. Raise OutputImpossible if the rows cannot be split by
        the contract's partition_by, or cannot be converted to the types of earlier rows."""
        with self._seconds.of("write"):
            table = as_table(frame, self._kinds)
            self.columns = tuple(table.column_names)
            if self._schema is None:
                self._schema = self._published(table).schema
                _require_storable(self._schema, self._output.format)
            for folder, part in self._parts(frame, table):
                part = _as_before(self._published(part), self._schema)
                self._in(folder).write(part, min(WAITING_BYTES, _ALL_WAITING_BYTES // len(self._files)))
            self._bound_open_files()

    def close(self) -> tuple[OutputFile, ...]:
        """Finish all files, and return them in the order of their folders. If no rows were written, write and return a
        single file without rows."""
        with self._seconds.of("write"):
            if not self._files:
                self._in("").write((self._schema or pa.schema([])).empty_table())
            return tuple(file for folder in sorted(self._files) for file in self._files[folder].finish())

    def _bound_open_files(self) -> None:
        """Finish the largest unfinished files, and pass them to `take_away`, until the others together are small
        enough."""
        if len(self._files) <= _OPEN_FILES:
            return  # each file is smaller than max_file_bytes
        sizes = {folder: files.open_bytes for folder, files in self._files.items()}
        while sum(sizes.values()) >= _OPEN_FILES * self._output.max_file_bytes:
            largest = max(sizes, key=lambda folder: sizes[folder])
            self._files[largest].hand_over()
            del sizes[largest]

    def _in(self, folder: str) -> FileSeries:
        if folder not in self._files:
            if len(self._files) >= MAX_FOLDERS:
                raise OutputImpossible(
                    f"output.partition_by {list(self._output.partition_by)} results in more than {MAX_FOLDERS} folders"
                )
            if len(folder) > _MAX_FOLDERS_CHARACTERS:
                raise OutputImpossible(
                    f"output.partition_by {list(self._output.partition_by)} results in folders with {len(folder)} "
                    f"characters; S3 allows only short object keys, so at most {_MAX_FOLDERS_CHARACTERS} are possible"
                )
            stem = self._folder / f"data-{len(self._files):04d}"
            self._files[folder] = FileSeries("data", stem, folder, self._output, self._take_away)
        return self._files[folder]

    def _parts(self, frame: pd.DataFrame, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        if not self._output.partition_by:
            yield "", table
            return
        folders = pd.Series("", index=pd.RangeIndex(len(frame)), dtype="str")
        for name in self._output.partition_by:
            folders = folders + _folder_names(name, frame, self._kinds)
        for folder, places in folders.groupby(folders, sort=True).indices.items():
            yield str(folder), table.take(pa.array(places))

    def _published(self, table: pa.Table) -> pa.Table:
        """Return a table without the columns whose values are in the folders' names, because readers of such folders
        take these columns from the names."""
        named = [name for name in self._output.partition_by if name in table.column_names]
        if named and len(named) == table.num_columns:
            raise OutputImpossible(f"output.partition_by {named} leaves no column to write")
        return table.drop_columns(named) if named else table


def as_table(frame: pd.DataFrame, kinds: Mapping[str, str]) -> pa.Table:
    """Convert a frame to the Arrow table that is published. The table has plain types, no index and no metadata of
    pandas."""
    arrays = {str(name): _array(values, kinds.get(str(name))) for name, values in frame.items()}
    return pa.table(arrays)


def _require_storable(schema: pa.Schema, file_format: str) -> None:
    """Raise OutputImpossible if files in this format cannot store the values of a column."""
    for field in schema:
        is_empty = pa.types.is_struct(field.type) and not field.type.num_fields
        if is_empty or (file_format == "csv" and pa.types.is_nested(field.type)):
            raise OutputImpossible(
                f"the column {field.name!r} holds {field.type}, which {file_format} files cannot store; return text"
                " from the custom step"
            )


def _as_before(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Convert a table to the schema of earlier rows. Raise OutputImpossible if Arrow refuses to convert a column, or if
    the conversion would change nested values."""
    if table.schema == schema:
        return table
    return pa.table([_column_as_before(table[field.name], field) for field in schema], schema=schema)


def _column_as_before(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if values.type == field.type:
        return values
    try:
        cast = values.cast(field.type)
    except pa.ArrowException:
        cast = None
    # In nested values, Arrow silently drops the fields that the other type does not have.
    if cast is None or (pa.types.is_nested(values.type) and cast.to_pylist() != values.to_pylist()):
        raise OutputImpossible(
            f"the column {field.name!r} holds {values.type} in some rows, and {field.type} in earlier rows. A custom"
            " step gets the rows in pieces, so it must return the same types for any rows"
        )
    return cast


def _array(values: pd.Series, kind: str | None) -> pa.Array:
    is_moment = pd.api.types.is_datetime64_dtype(values.dtype)
    if (kind == "date" and is_moment) or (kind == "time" and isinstance(values.dtype, pd.StringDtype)):
        return to_arrow(values, kind)
    # Arrow would publish a period as a number, and an interval as a type that few programs can read.
    as_text = isinstance(values.dtype, pd.PeriodDtype | pd.IntervalDtype)
    try:
        array = arrow_array(values.astype("str") if as_text or _mixes_dates(values) else values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        # A custom step may return values of several types, or of a type that Arrow does not have.
        array = arrow_array(values.map(str, na_action="ignore").astype("str"))
    plain = _plain_type(array.type)
    is_finer = pa.types.is_timestamp(array.type) and array.type.unit == "ns"  # than microseconds: digits are cut off
    return array if plain == array.type else array.cast(plain, safe=not is_finer)


def _mixes_dates(values: pd.Series) -> bool:
    """Return whether a column has dates and also other values. If the first value is a date, Arrow would drop the time
    of later timestamps."""
    kinds = set(map(type, values.dropna())) if pd.api.types.is_object_dtype(values.dtype) else set()
    return dt.date in kinds and len(kinds) > 1


def _plain_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(found):
        return _plain_type(found.value_type)
    if pa.types.is_large_string(found) or pa.types.is_null(found):
        return pa.string()
    if pa.types.is_timestamp(found):
        return pa.timestamp("us", tz=found.tz)
    return found


def require_columns_of(partition_by: Sequence[str], frame: pd.DataFrame) -> None:
    """Raise OutputImpossible if a frame lacks a column in partition_by, or if an entry `day(column)` names a column
    without timestamps or dates."""
    for name in partition_by:
        _folder_names(name, frame, {})


def _folder_names(name: str, frame: pd.DataFrame, kinds: Mapping[str, str]) -> pd.Series:
    """Return the name of each row's folder for one entry in partition_by, such as "country=DE/". Dates are written in
    ISO 8601."""
    day = _DAY.fullmatch(name)
    column = day.group(1).strip() if day else name
    if column not in frame.columns:
        present = ", ".join(map(repr, frame.columns))
        raise OutputImpossible(f"output.partition_by: there is no column {column!r}; the columns are {present}")
    values = frame[column].reset_index(drop=True)
    label = quote(f"{column}_day" if day else column, safe="")
    if day:
        if not pd.api.types.is_datetime64_any_dtype(values.dtype):
            raise OutputImpossible(f"output.partition_by: {name}: the column does not hold timestamps or dates")
        if f"{column}_day" in frame.columns:
            raise OutputImpossible(f"output.partition_by: {name}: the table already has a column '{column}_day'")
        values = values.dt.strftime("%Y-%m-%d")
    elif kinds.get(column) == "date" and pd.api.types.is_datetime64_dtype(values.dtype):
        values = pandas_column(to_arrow(values, "date"), "str")
    names = values.map(_folder_value, na_action="ignore").astype("str").fillna(_NO_VALUE)
    return f"{label}=" + names + "/"


def _folder_value(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    label = quote(str(value), safe="")
    if len(label) > _MAX_FOLDER_CHARACTERS:
        label = label[:_MAX_FOLDER_CHARACTERS] + "-" + hashlib.sha256(label.encode()).hexdigest()[:8]
    return label or "%00"
