"""Read Parquet into partitions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.refinery.read.header import check_header
from flows.refinery.read.partition import Limits, Misfit, Partition, SourceFormat
from flows.refinery.read.rejections import (
    BytesWithoutText,
    ExpandsTooMuch,
    FileTooLarge,
    ParquetBroken,
    TooManyColumns,
    TooManyRows,
)
from flows.refinery.read.text_source import CONTROLS, is_utf8
from flows.refinery.words import EXACT_FLOAT

_MAX_BATCH_BYTES = 1 << 30  # of one partition's texts, checked before dictionaries are expanded
_MAX_FIXED_BYTES = 64 << 20  # of one partition's values of a fixed size
_MAX_PLAIN_ROWS = 16_384  # of one partition, if texts cannot be read as dictionaries
_FOOTER_BYTES = 64 << 20
_MAGIC = b"PAR1"


def read_parquet(file: IO[bytes], rows_per_partition: int, limits: Limits, compression: Any) -> Iterator[Partition]:
    """Read a Parquet file. Nested values become JSON text; integers with missing values float64, if that is exact.
    Raises ParquetBroken, HeaderInvalid, TooManyColumns, TooManyRows, FileTooLarge, ExpandsTooMuch, BytesWithoutText."""
    _require_end(file)
    found = SourceFormat(type="parquet", compression=compression)
    batches = _batches(file, rows_per_partition, limits)
    first = 1
    while True:
        try:
            batch = next(batches, None)
            bad = np.empty(0, dtype=bool) if batch is None else _undecodable(batch)
            misfits = _misfits(batch, bad, first, "undecodable_text") if bad.any() else []
            if batch is not None and (infinite := _infinite(batch) & ~bad).any():
                misfits += _misfits(batch, infinite, first, "number_not_finite")
                bad |= infinite
            frame = None if batch is None else _to_frame(batch.filter(pa.array(~bad)) if misfits else batch)
        except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
            # If a thread runs out of memory, Arrow may raise only a general error.
            may_lack_memory = isinstance(error, MemoryError) or type(error) is pa.ArrowException
            if may_lack_memory and not _fits_into_memory(file):
                raise MemoryError from error  # the task's fault, not the file's
            raise ParquetBroken(
                f"the Parquet file cannot be read after row {first - 1}: {type(error).__name__}"
            ) from error
        if frame is None:
            return
        yield Partition(frame, first + np.flatnonzero(~bad), misfits, found)
        first += len(bad)


def _batches(file: IO[bytes], rows_per_partition: int, limits: Limits) -> Iterator[pa.RecordBatch]:
    options: dict[str, Any] = {
        "thrift_string_size_limit": _FOOTER_BYTES,
        "thrift_container_size_limit": 10_000_000,
        "coerce_int96_timestamp_unit": "us",  # nanoseconds wrap around before 1677 and after 2262
        "pre_buffer": False,  # what it reads ahead stays in memory until the file is closed
    }
    footer = pq.ParquetFile(file, **options)
    columns = _check(footer.metadata, file.seek(0, 2), limits)
    schema = footer.schema_arrow
    check_header(schema.names, limits)
    rows = min(rows_per_partition, limits.max_partition_cells // max(1, columns))
    rows = max(1, min(rows, _MAX_FIXED_BYTES // max(1, _fixed_bytes(schema, limits))))
    file.seek(0)
    parquet = pq.ParquetFile(file, read_dictionary=_text_columns(footer.schema), **options)
    count = 0
    try:
        for batch in parquet.iter_batches(batch_size=rows, use_threads=True):
            yield from _checked(batch)
            count += batch.num_rows
    except OSError as error:
        if "DictAccumulator" not in str(error):  # only the message distinguishes this from damage
            raise
        # Texts in one of the DELTA encodings, which Arrow does not read as dictionaries.
        file.seek(0)
        parquet = pq.ParquetFile(file, **options)
        seen = 0
        for batch in parquet.iter_batches(batch_size=min(rows, _MAX_PLAIN_ROWS), use_threads=True):
            new = batch.slice(max(0, count - seen))
            seen += batch.num_rows
            yield from _checked(new)
        count = max(count, seen)
    if not count:
        yield pa.RecordBatch.from_pylist([], schema=schema)


def _checked(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    expanded = sum(map(_text_bytes, batch.columns))
    if expanded > _MAX_BATCH_BYTES:
        raise ExpandsTooMuch(f"{batch.num_rows} rows expand to {expanded} bytes of text")
    if batch.num_rows:
        yield batch


def _require_end(file: IO[bytes]) -> None:
    file.seek(0)
    is_parquet = file.read(len(_MAGIC)) == _MAGIC
    file.seek(-len(_MAGIC), 2)
    if is_parquet and file.read(len(_MAGIC)) not in (_MAGIC, b"PARE"):
        raise ParquetBroken("the Parquet file is cut short: the footer at its end is missing; upload it again")
    file.seek(0)


def _fits_into_memory(file: IO[bytes]) -> bool:
    """Return whether there is memory for the largest row group according to the footer. If Arrow ran out of memory
    nevertheless, a damaged page asked for more."""
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
        raise ExpandsTooMuch(f"{size_bytes} bytes expand to {expanded}; real data does not expand that much")
    return columns


def _text_columns(schema: pq.ParquetSchema) -> list[str]:
    """Return the text columns, nested ones included, to read as dictionaries: in a small file, a few long texts can
    fill a million rows.

    Looking up in the footer which columns are stored as dictionaries would be faster, but pyarrow 26 ends the process
    if the column part of a footer is damaged (`ColumnChunkMetaData` throws where no exception may leave).
    """
    leaves = map(schema.column, range(len(schema)))
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type != "DECIMAL"]


def _fixed_bytes(schema: pa.Schema, limits: Limits) -> int:
    """Return how many bytes one row has in the fixed-size binary columns. Raise ExpandsTooMuch above the limit."""
    width: int = sum(field.type.byte_width for field in schema if pa.types.is_fixed_size_binary(field.type))
    if width > limits.max_record_bytes:
        raise ExpandsTooMuch(f"a row holds {width} bytes; at most {limits.max_record_bytes} are read")
    return width


def _text_bytes(column: Any) -> int:
    """Return how many bytes a column's texts have once their dictionaries are expanded, also in lists and structs."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        if column.indices.null_count == len(column):
            return 0
        lengths = pc.binary_length(column.dictionary)
        total: int = pc.sum(pc.take(lengths, column.indices).cast(pa.int64())).as_py() or 0
        return total
    if pa.types.is_map(kind):
        return _text_bytes(column.keys) + _text_bytes(column.items)
    if pa.types.is_struct(kind):
        return sum([_text_bytes(part) for part in column.flatten()])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _text_bytes(column.flatten())
    return 0


def _infinite(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return which rows have an infinite number in a nested value: JSON cannot represent it."""
    bad = np.zeros(batch.num_rows, dtype=bool)
    for column in batch.columns:
        if pa.types.is_nested(column.type) and any(name in str(column.type) for name in ("float", "double")):
            bad |= [_has_infinity(value) for value in column.to_pylist()]
    return bad


def _has_infinity(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_infinity, value))
    return isinstance(value, float) and math.isinf(value)


def _without_nan(value: Any) -> Any:
    """Return the value with null in place of NaN, which means missing."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _undecodable(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return which rows have a text that is not UTF-8: neither Parquet's writers nor Arrow's reader check that."""
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


def _misfits(batch: pa.RecordBatch, bad: npt.NDArray[np.bool_], first: int, reason: str) -> list[Misfit]:
    rows = zip(*map(_values, batch.filter(pa.array(bad)).columns), strict=True)
    numbers = (first + np.flatnonzero(bad)).tolist()
    return [
        Misfit.of(number, reason, ",".join("" if value is None else _as_text(value) for value in row))
        for number, row in zip(numbers, rows, strict=True)
    ]


def _values(column: Any) -> list[Any]:
    """Return a column's values as Python objects, texts as bytes."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[Any] = (column.cast(pa.large_binary()) if _is_text(column.type) else column).to_pylist()
    return values


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _to_frame(batch: pa.RecordBatch) -> pd.DataFrame:
    names = batch.schema.names
    return pd.DataFrame({name: _to_series(batch.column(place), name) for place, name in enumerate(names)})


def _to_series(column: Any, name: str) -> pd.Series[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_float16(kind):
        return _to_series(column.cast(pa.float32()), name)  # Arrow computes hardly anything with halves
    if _is_bytes(kind):
        return pd.Series(
            [None if value is None else _text_of(value, name) for value in column.to_pylist()], dtype="str"
        )
    if pa.types.is_nested(kind):
        return pd.Series([_json_of(value, name) for value in column.to_pylist()], dtype="str")
    if pa.types.is_decimal(kind) and kind.scale <= 0:
        column = _whole(column)
        kind = column.type
    if pa.types.is_integer(kind) and column.null_count and column.null_count < len(column):
        bounds = pc.min_max(column)
        if max(abs(bounds["min"].as_py()), abs(bounds["max"].as_py())) >= EXACT_FLOAT:
            return pd.Series(column.to_pylist(), dtype=object)
    if pa.types.is_duration(kind):
        return pd.Series([None if value is None else str(value) for value in column.to_pylist()], dtype="str")
    return _simple_series(column)


def _simple_series(column: Any) -> pd.Series[Any]:
    if pa.types.is_null(column.type):
        return pd.Series(np.full(len(column), np.nan))
    if column.type == pa.time64("ns"):
        column = column.cast(pa.time64("us"), safe=False)
    series: pd.Series[Any] = column.to_pandas()
    return series


def _is_bytes(kind: pa.DataType) -> bool:
    is_fixed = pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or is_fixed)


def _whole(column: Any) -> Any:
    """Convert decimals without a fraction to 64-bit integers, if all of them fit; else return them unchanged."""
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column


def _json_of(value: Any, name: str) -> str | None:
    if value is None:
        return None
    return json.dumps(_without_nan(value), default=lambda part: _text_of(part, name), ensure_ascii=False)


def _text_of(value: Any, name: str) -> str:
    """Return a value that JSON lacks, such as a date, a decimal or bytes, as text. Raises BytesWithoutText."""
    if not isinstance(value, bytes):
        return str(value)
    if not is_utf8(value) or CONTROLS.search(text := value.decode()):
        raise BytesWithoutText(
            f"the column {name!r} holds bytes that are not UTF-8 text; leave it out, or write it as text"
        )
    return text


def _as_text(value: Any) -> str:
    """Return any value as text, also bytes that are not UTF-8, for the quarantine."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
