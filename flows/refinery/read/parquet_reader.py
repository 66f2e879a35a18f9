"""Read Parquet in a reader process, which sends the rows to the task with simple types. To save memory there, this
module does not import pandas."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.refinery.read.byte_source import open_bytes
from flows.refinery.read.header import check_header
from flows.refinery.read.partition import Limits, Misfit, SourceFormat
from flows.refinery.read.rejections import (
    BytesWithoutText,
    ExpandsTooMuch,
    FileTooLarge,
    ParquetBroken,
    TooManyColumns,
    TooManyRows,
)
from flows.refinery.read.remote_file import Source
from flows.refinery.read.text_source import CONTROLS, is_utf8

_MAX_BATCH_BYTES = 1 << 30  # of one batch with expanded dictionaries, checked before they are expanded
_BATCH_BYTES = 8 << 20  # of one batch, as estimated from the footer
_BATCH_ROWS = 16_384
_CELL_BYTES = 8
_LARGE_GROUP_BYTES = 32 << 20  # uncompressed; the columns of larger row groups are read through buffers
_BUFFERS_BYTES, _LEAST_BUFFER_BYTES = 16 << 20, 16 << 10  # of all columns together, and of one
_DICTIONARIES_BYTES = 32 << 20  # of the dictionaries of one batch, for all columns together
_EARLY_BYTES, _REPEATED = 1 << 20, 9  # the same limit in the first ninth of a row group
_EXPANDED_BYTES = 64 << 20  # of one batch, if each of its strings were as long as the longest in a dictionary
_FOOTER_BYTES = 64 << 20
_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """Some consecutive rows of a Parquet file, as a reader process sends them."""

    schema: pa.Buffer  # serialized as in an Arrow stream
    batches: list[pa.Buffer]  # the rows that could be decoded
    row_numbers: npt.NDArray[np.int64]  # the numbers of these rows, from 1
    misfits: list[Misfit]  # the other rows
    source_format: SourceFormat


class _Rows:
    """Collects batches for one partition after another."""

    def __init__(self, found: SourceFormat) -> None:
        self._found = found
        self._schema: pa.Buffer | None = None
        self._start()
        self.first = 1  # the number of the next row

    def _start(self) -> None:
        self._batches: list[pa.Buffer] = []
        self._numbers: list[npt.NDArray[np.int64]] = []
        self._misfits: list[Misfit] = []
        self.size, self.rows = 0, 0

    def add(self, batch: pa.RecordBatch, numbers: npt.NDArray[np.int64], misfits: list[Misfit]) -> None:
        """Add the good rows of a batch, and its misfits."""
        self._schema = self._schema or batch.schema.serialize()
        self._batches.append(batch.serialize())
        self._numbers.append(numbers)
        self._misfits += misfits
        self.size += self._batches[-1].size
        self.rows += batch.num_rows + len(misfits)
        self.first += batch.num_rows + len(misfits)

    def take(self) -> ParquetRows:
        """Return the rows that were added since the last call."""
        taken = ParquetRows(self._schema, self._batches, np.concatenate(self._numbers), self._misfits, self._found)
        self._start()
        return taken


def read_parquet(file: Source, rows_per_partition: int, limits: Limits) -> Iterator[ParquetRows]:
    """Read a Parquet file. Nested values become JSON text; bytes and durations become strings.

    Raises:
        BytesWithoutText, CompressionBroken, EmptyFile, ExpandsTooMuch, FileTooLarge, HeaderInvalid, ParquetBroken,
        TooManyColumns, TooManyRows
        MemoryError: the task has too little memory.
    """
    with open_bytes(file, limits) as source, source.as_file(limits.max_expanded_bytes) as unpacked:
        _require_end(unpacked)
        rows = _Rows(SourceFormat(type="parquet", compression=source.compression))
        try:
            for batch in _batches(unpacked, rows_per_partition, limits):
                most = min(rows_per_partition, limits.max_partition_cells // max(1, batch.num_columns))
                for piece, size in _pieces(batch, limits.max_block_bytes):
                    is_full = rows.size + size > limits.max_block_bytes or rows.rows + piece.num_rows > most
                    if rows.rows and is_full:
                        yield rows.take()
                    _add(rows, piece)
        except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
            # If a thread runs out of memory, Arrow may raise only a general error.
            may_lack_memory = isinstance(error, MemoryError) or type(error) is pa.ArrowException
            if may_lack_memory and not _fits_into_memory(unpacked):
                raise MemoryError from error  # the task is too small, and the file may be valid
            raise ParquetBroken(
                f"the Parquet file cannot be read after row {rows.first - 1}: {type(error).__name__}"
            ) from error
        yield rows.take()


def _add(rows: _Rows, batch: pa.RecordBatch) -> None:
    bad = _undecodable(batch)
    misfits = _misfits(batch, bad, rows.first, "undecodable_text") if bad.any() else []
    if (infinite := _infinite(batch) & ~bad).any():
        misfits += _misfits(batch, infinite, rows.first, "number_not_finite")
        bad |= infinite
    good = batch.filter(pa.array(~bad)) if misfits else batch
    names = good.schema.names
    simple = [_simple(column, name) for column, name in zip(good.columns, names, strict=True)]
    rows.add(pa.RecordBatch.from_arrays(simple, names), rows.first + np.flatnonzero(~bad), misfits)


def _batches(file: IO[bytes], rows_per_partition: int, limits: Limits) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, in at least one batch. String columns may be dictionary-encoded."""
    footer = _open(file)
    metadata, schema = footer.metadata, footer.schema_arrow
    _check(metadata, file.seek(0, 2), limits)
    check_header(schema.names, limits)
    rows = _rows_at_once(metadata, schema, limits)
    rows = max(1, min(rows_per_partition, limits.max_partition_cells // max(1, metadata.num_columns), rows))
    groups = _RowGroups(file, metadata, _text_columns(footer.schema), rows)
    is_empty = True
    for group in range(metadata.num_row_groups):
        for batch in groups.batches(group):
            is_empty = False
            yield batch
    if is_empty:
        yield pa.RecordBatch.from_pylist([], schema=schema)


def _open(file: IO[bytes], **options: Any) -> pq.ParquetFile:
    file.seek(0)
    return pq.ParquetFile(
        file,
        thrift_string_size_limit=_FOOTER_BYTES,
        thrift_container_size_limit=10_000_000,
        coerce_int96_timestamp_unit="us",  # nanoseconds wrap around before 1677 and after 2262
        pre_buffer=False,  # data that is read ahead would stay in memory until the file is closed
        **options,
    )


class _RowGroups:
    """Reads row groups of any size in bounded memory.

    String columns are read dictionary-encoded, because a small file can repeat a few long strings over a million rows,
    which would take far more memory if they were decoded. However, Arrow adds each new string to the dictionary, which
    grows until the row group ends. If the dictionaries get large, the rest of the row group is read without the largest
    ones. By then, the strings that the file stores in dictionaries are known, so batches can be made small enough for
    them.

    Args:
        texts: the paths of the string columns.
        rows: the maximum number of rows in a batch.
    """

    def __init__(self, file: IO[bytes], metadata: Any, texts: list[str], rows: int) -> None:
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        largest = max((group.total_byte_size for group in groups), default=0)
        buffer_bytes = max(_LEAST_BUFFER_BYTES, _BUFFERS_BYTES // max(1, metadata.num_columns))
        # Without buffers, the compressed columns of a row group are in memory at once.
        options = {"metadata": metadata, "buffer_size": buffer_bytes if largest > _LARGE_GROUP_BYTES else 0}
        self._open = partial(_open, file, **options)
        self._metadata, self._texts, self._rows = metadata, texts, rows
        self._parquet = self._open(read_dictionary=texts)

    def batches(self, group: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group."""
        parquet, texts, rows = self._parquet, self._texts, self._rows
        done, total, longest = 0, self._metadata.row_group(group).num_rows, 0
        while True:
            place = 0
            try:
                for batch in parquet.iter_batches(batch_size=rows, row_groups=[group], use_threads=False):
                    new = batch.slice(max(0, done - place))
                    place += batch.num_rows
                    done = max(done, place)
                    if new.num_rows:
                        yield new
                    is_early = _REPEATED * done < total  # so that few rows are read twice
                    large = _large_dictionaries(batch, texts, _EARLY_BYTES if is_early else _DICTIONARIES_BYTES)
                    if large:
                        break
                else:
                    return
            except OSError as error:
                if not texts or "DictAccumulator" not in str(error):  # only the message distinguishes this from damage
                    raise
                # Some strings are in one of the DELTA encodings, which Arrow does not read as dictionaries.
                self._texts = texts = []
                self._parquet = parquet = self._open()
                continue
            texts = [path for path in texts if path not in large]
            longest += sum(large.values())
            rows = max(1, min(rows, _EXPANDED_BYTES // max(1, longest)))
            parquet = self._open(read_dictionary=texts)


def _large_dictionaries(batch: pa.RecordBatch, texts: list[str], limit: int) -> dict[str, int]:
    """Return the string columns with the largest dictionaries if the dictionaries of a batch together have more bytes
    than the limit, and none otherwise. The result maps each column's path to the length in bytes of the longest string
    in its top-level column."""
    found = {
        name: [leaf.dictionary for leaf in _leaves(column) if pa.types.is_dictionary(leaf.type)]
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    sizes = {name: sum(dictionary.nbytes for dictionary in some) for name, some in found.items()}
    if sum(sizes.values()) <= limit:
        return {}
    lengths = {
        name: max(pc.max(pc.binary_length(dictionary)).as_py() or 0 for dictionary in found[name])
        for name, size in sizes.items()
        if size * len(sizes) > limit
    }
    return {path: lengths[name] for path in texts for name in lengths if path == name or path.startswith(f"{name}.")}


def _rows_at_once(metadata: Any, schema: pa.Schema, limits: Limits) -> int:
    """Return how many rows a batch may have. Raise ExpandsTooMuch if the bytes of a row's fixed-size columns exceed the
    limit."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    in_file = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    row_bytes = max(in_file, _CELL_BYTES * metadata.num_columns, _fixed_bytes(schema, limits))
    return min(_BATCH_ROWS, int(_BATCH_BYTES // max(1, row_bytes)))


def _pieces(batch: pa.RecordBatch, max_bytes: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Split a batch into pieces of one row, or of at most `max_bytes` once their dictionaries are expanded. Yield each
    piece with its expanded size in bytes. Raise ExpandsTooMuch if the whole batch is too large."""
    expanded = sum(_expanded_bytes(leaf) for column in batch.columns for leaf in _leaves(column))
    if expanded > _MAX_BATCH_BYTES:
        raise ExpandsTooMuch(f"{batch.num_rows} rows expand to {expanded} bytes")
    if batch.num_rows > 1 and expanded > max_bytes:
        middle = batch.num_rows // 2
        yield from _pieces(batch.slice(0, middle), max_bytes)
        yield from _pieces(batch.slice(middle), max_bytes)
    else:
        yield batch, expanded


def _require_end(file: IO[bytes]) -> None:
    file.seek(0)
    is_parquet = file.read(len(_MAGIC)) == _MAGIC
    file.seek(-len(_MAGIC), 2)
    if is_parquet and file.read(len(_MAGIC)) not in (_MAGIC, b"PARE"):
        raise ParquetBroken("the Parquet file is cut short: the footer at its end is missing; upload it again")
    file.seek(0)


def _fits_into_memory(file: IO[bytes]) -> bool:
    """Return whether there is memory for twice the size of the largest row group, according to the footer. If so, Arrow
    ran out of memory because a damaged page requested too much."""
    file.seek(0)
    metadata = pq.ParquetFile(file).metadata
    largest = max((metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)), default=0)
    try:
        pa.allocate_buffer(2 * largest)
    except pa.ArrowMemoryError:
        return False
    return True


def _check(metadata: Any, size_bytes: int, limits: Limits) -> None:
    if metadata.num_columns > limits.max_columns:
        raise TooManyColumns(f"{metadata.num_columns} columns; at most {limits.max_columns} are read")
    if metadata.num_rows > limits.max_rows:
        raise TooManyRows(f"{metadata.num_rows} rows; at most {limits.max_rows} are read")
    expanded = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    if expanded > limits.max_expanded_bytes:
        raise FileTooLarge(f"the columns have {expanded} bytes; at most {limits.max_expanded_bytes} are read")
    if expanded > max(limits.expansion_grace_bytes, limits.max_expansion_ratio * size_bytes):
        raise ExpandsTooMuch(f"{size_bytes} bytes expand to {expanded}; real data does not expand that much")


def _text_columns(schema: pq.ParquetSchema) -> list[str]:
    """Return the paths of the columns of strings and bytes, including nested ones.

    Looking up in the footer which columns are stored as dictionaries would be faster, but pyarrow 26 aborts the process
    if the column metadata in the footer is corrupt (`ColumnChunkMetaData` throws in a noexcept function).
    """
    leaves = map(schema.column, range(len(schema)))
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type != "DECIMAL"]


def _fixed_bytes(schema: pa.Schema, limits: Limits) -> int:
    """Return how many bytes a row has in fixed-size binary columns. Raise ExpandsTooMuch if they exceed the limit."""
    width: int = sum(field.type.byte_width for field in schema if pa.types.is_fixed_size_binary(field.type))
    if width > limits.max_record_bytes:
        raise ExpandsTooMuch(f"a row has {width} bytes; at most {limits.max_record_bytes} are read")
    return width


def _leaves(column: Any) -> Iterator[Any]:
    """Yield the arrays that a column consists of: the column itself, or the parts of its lists, maps and structs."""
    kind = column.type
    if pa.types.is_map(kind):
        first, last = column.offsets[0].as_py(), column.offsets[-1].as_py()
        parts = [part.slice(first, last - first) for part in (column.keys, column.items)]
    elif pa.types.is_struct(kind):
        parts = column.flatten()
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        parts = [column.flatten()]
    else:
        yield column
        return
    for part in parts:
        yield from _leaves(part)


def _expanded_bytes(leaf: Any) -> int:
    """Return how many bytes an array has once its dictionary is expanded."""
    if not pa.types.is_dictionary(leaf.type):
        return int(leaf.nbytes)
    if leaf.indices.null_count == len(leaf):
        return 0
    lengths = pc.binary_length(leaf.dictionary)
    total: int = pc.sum(pc.take(lengths, leaf.indices).cast(pa.int64())).as_py() or 0
    return total


def _infinite(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return which rows have an infinite number in a nested value, which JSON cannot represent."""
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
    """Return a value with None in place of each NaN, because NaN means missing."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _undecodable(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return which rows have a string, outside nested values, that is not UTF-8. Arrow's reader does not check that."""
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
    """Return a column's values as Python objects, with strings as bytes."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[Any] = (column.cast(pa.large_binary()) if _is_text(column.type) else column).to_pylist()
    return values


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _simple(column: Any, name: str) -> pa.Array:
    """Convert a column of dictionaries, nested values, bytes, durations or float16 to a simpler type."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())  # Arrow supports hardly any computation with float16
    if _is_bytes(kind):
        return _texts([None if value is None else _text_of(value, name) for value in column.to_pylist()])
    if pa.types.is_nested(kind):
        return _texts([_json_of(value, name) for value in column.to_pylist()])
    if pa.types.is_duration(kind):
        return _texts([None if value is None else str(value) for value in column.to_pylist()])
    return column


def _texts(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.large_string())


def _is_bytes(kind: pa.DataType) -> bool:
    is_fixed = pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or is_fixed)


def _json_of(value: Any, name: str) -> str | None:
    if value is None:
        return None
    return json.dumps(_without_nan(value), default=lambda part: _text_of(part, name), ensure_ascii=False)


def _text_of(value: Any, name: str) -> str:
    """Convert a value that JSON does not have, such as a date, a decimal or bytes, to a string. Raise BytesWithoutText
    if the bytes are not text."""
    if not isinstance(value, bytes):
        return f"{value:f}" if isinstance(value, Decimal) else str(value)  # str would write 0.00000001 as 1E-8
    if not is_utf8(value) or CONTROLS.search(text := value.decode()):
        raise BytesWithoutText(
            f"the column {name!r} contains bytes that are not UTF-8 text; leave it out, or write it as text"
        )
    return text


def _as_text(value: Any) -> str:
    """Convert any value, including bytes that are not UTF-8, to a string for the quarantine."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
