"""Parquet to partitions, row group by row group."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.refinery.read.columns import EXACT_FLOAT
from flows.refinery.read.header import check_header
from flows.refinery.read.partition import Limits, Misfit, Partition, SourceFormat
from flows.refinery.read.rejections import (
    ExpandsTooMuch,
    FileTooLarge,
    ParquetBroken,
    TooManyColumns,
    TooManyRows,
)
from flows.refinery.read.text_source import is_utf8

_MAX_BATCH_BYTES = 1 << 30  # of one partition's texts, counted before they are spread out
_FOOTER_BYTES = 64 << 20


def read_parquet(file: IO[bytes], rows_per_partition: int, limits: Limits, compression: Any) -> Iterator[Partition]:
    """Read a Parquet file. Nested values come as JSON text; integers with missing ones as float64 where it is exact.

    Raises:
        ParquetBroken, HeaderInvalid, TooManyColumns, TooManyRows, FileTooLarge, ExpandsTooMuch
    """
    found = SourceFormat(type="parquet", compression=compression)
    batches = _batches(file, rows_per_partition, limits)
    first = 1
    while True:
        try:
            batch = next(batches, None)
            bad = np.empty(0, dtype=bool) if batch is None else _undecodable(batch)
            misfits = _misfits(batch, bad, first) if bad.any() else []
            frame = None if batch is None else _to_frame(batch.filter(pa.array(~bad)) if misfits else batch)
        except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
            if isinstance(error, MemoryError) and not _fits_into_memory(file):
                raise MemoryError from error  # the task's fault, not the file's
            raise ParquetBroken(
                f"the Parquet file cannot be read after row {first - 1}: {type(error).__name__}"
            ) from error
        if frame is None:
            return
        yield Partition(frame, first + np.flatnonzero(~bad), misfits, found)
        first += len(bad)


def _batches(file: IO[bytes], rows_per_partition: int, limits: Limits) -> Iterator[pa.RecordBatch]:
    options = {"thrift_string_size_limit": _FOOTER_BYTES, "thrift_container_size_limit": 10_000_000}
    footer = pq.ParquetFile(file, **options)
    columns = _check(footer.metadata, file.seek(0, 2), limits)
    schema = footer.schema_arrow
    check_header(schema.names, limits)
    file.seek(0)
    parquet = pq.ParquetFile(file, read_dictionary=_text_columns(schema), **options)
    rows = max(1, min(rows_per_partition, limits.max_partition_cells // max(1, columns)))
    count = 0
    for batch in parquet.iter_batches(batch_size=rows, use_threads=True):
        _check_expansion(batch)
        count += batch.num_rows
        if batch.num_rows:
            yield batch
    if not count:
        yield pa.RecordBatch.from_pylist([], schema=schema)


def _fits_into_memory(file: IO[bytes]) -> bool:
    """Whether there is memory for as much as the footer gives. If so, and Arrow found none, it was asked for something
    else: a damaged page gives any size."""
    file.seek(0)
    metadata = pq.ParquetFile(file).metadata
    largest = max((metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)), default=0)
    try:
        pa.allocate_buffer(2 * largest)
    except pa.ArrowMemoryError:
        return False
    return True


def _check(metadata: Any, size_bytes: int, limits: Limits) -> int:
    columns = int(metadata.num_columns)
    if columns > limits.max_columns:
        raise TooManyColumns(f"{columns} columns; at most {limits.max_columns} are read")
    if metadata.num_rows > limits.max_rows:
        raise TooManyRows(f"{metadata.num_rows} rows; at most {limits.max_rows} are read")
    expanded = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    if expanded > limits.max_expanded_bytes:
        raise FileTooLarge(f"the columns hold {expanded} bytes; at most {limits.max_expanded_bytes} are read")
    if expanded > max(limits.expansion_grace_bytes, limits.max_expansion_ratio * size_bytes):
        raise ExpandsTooMuch(f"{size_bytes} bytes expand to {expanded}; that is no data")
    return columns


def _text_columns(schema: pa.Schema) -> list[str]:
    """Columns to be read as dictionaries: a few long texts can stand for a million rows in a small file.

    Asking the footer which of them are stored so would be faster, but pyarrow 26 ends the process when the column
    part of a footer is damaged (`ColumnChunkMetaData` throws where no exception may leave).
    """
    return [field.name for field in schema if _is_text(field.type) or pa.types.is_binary(field.type)]


def _check_expansion(batch: pa.RecordBatch) -> None:
    expanded = 0
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and column.indices.null_count < len(column):
            lengths = pc.binary_length(column.dictionary)
            expanded += pc.sum(pc.take(lengths, column.indices).cast(pa.int64())).as_py() or 0
    if expanded > _MAX_BATCH_BYTES:
        raise ExpandsTooMuch(f"{batch.num_rows} rows expand to {expanded} bytes of text")


def _undecodable(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Which rows hold a text that is no UTF-8: Parquet's writers need not look, and Arrow's reader does not."""
    bad = np.zeros(batch.num_rows, dtype=bool)
    for column in batch.columns:
        texts = column.dictionary if pa.types.is_dictionary(column.type) else column
        if not _is_text(texts.type):
            continue
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            bad |= [not is_utf8(value or b"") for value in _values(column)]
    return bad


def _misfits(batch: pa.RecordBatch, bad: npt.NDArray[np.bool_], first: int) -> list[Misfit]:
    rows = zip(*map(_values, batch.filter(pa.array(bad)).columns), strict=True)
    numbers = (first + np.flatnonzero(bad)).tolist()
    return [
        Misfit.of(number, "undecodable_text", ",".join("" if value is None else _as_text(value) for value in row))
        for number, row in zip(numbers, rows, strict=True)
    ]


def _values(column: Any) -> list[Any]:
    """A column's values, texts as bytes."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[Any] = (column.cast(pa.large_binary()) if _is_text(column.type) else column).to_pylist()
    return values


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _to_frame(batch: pa.RecordBatch) -> pd.DataFrame:
    names = batch.schema.names
    return pd.DataFrame({name: _to_series(batch.column(place)) for place, name in enumerate(names)})


def _to_series(column: Any) -> pd.Series[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_float16(kind):
        return _to_series(column.cast(pa.float32()))  # Arrow computes hardly anything with halves
    if pa.types.is_nested(kind):
        texts = [
            None if value is None else json.dumps(value, default=_as_text, ensure_ascii=False)
            for value in column.to_pylist()
        ]
        return pd.Series(texts, dtype="str")
    if pa.types.is_integer(kind) and column.null_count and column.null_count < len(column):
        bounds = pc.min_max(column)
        if max(abs(bounds["min"].as_py()), abs(bounds["max"].as_py())) >= EXACT_FLOAT:
            return pd.Series(column.to_pylist(), dtype=object)
    if pa.types.is_duration(kind):
        return pd.Series([None if value is None else str(value) for value in column.to_pylist()], dtype="str")
    if pa.types.is_null(kind):
        return pd.Series(np.full(len(column), np.nan))
    series: pd.Series[Any] = column.to_pandas()
    return series


def _as_text(value: Any) -> str:
    """What is no JSON, as a date, a decimal or bytes, which may be no UTF-8."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
