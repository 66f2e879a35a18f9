"""Read Parquet into partitions. A separate process reads the file, and this module converts its rows to DataFrames."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.read.parquet_reader import ParquetRows, read_parquet
from flows.refinery.read.partition import Limits, Partition
from flows.refinery.read.reader_process import read_apart
from flows.refinery.read.rejections import ParquetBroken
from flows.refinery.read.remote_file import Source
from flows.refinery.words import EXACT_FLOAT


def parquet_partitions(file: Source, rows_per_partition: int, limits: Limits) -> Iterator[Partition]:
    """Read a Parquet file. Integers with missing values become float64 if that is exact, and objects otherwise.

    Raises:
        ReaderKilled: the reader process died twice.
        FileRejected: as in `read_parquet`.
    """
    rows = 0
    for found in read_apart(read_parquet, file, rows_per_partition, limits):
        try:
            frame = _to_frame(found)
        except (pa.ArrowException, ValueError, OverflowError, KeyError) as error:
            raise ParquetBroken(f"the Parquet file cannot be read after row {rows}: {type(error).__name__}") from error
        partition = Partition(frame, found.row_numbers, found.misfits, found.source_format)
        rows += partition.rows_in
        del found, frame
        yield partition


def _to_frame(found: ParquetRows) -> pd.DataFrame:
    schema = pa.ipc.read_schema(found.schema)
    table = pa.Table.from_batches([pa.ipc.read_record_batch(batch, schema) for batch in found.batches], schema)
    table.validate(full=True)  # the reader is not trusted
    return pd.DataFrame({name: _to_series(table.column(name).combine_chunks()) for name in schema.names})


def _to_series(column: Any) -> pd.Series:
    kind = column.type
    if pa.types.is_decimal(kind) and kind.scale <= 0:
        column = _whole(column)
        kind = column.type
    if pa.types.is_integer(kind) and column.null_count and column.null_count < len(column):
        bounds = pc.min_max(column)
        if max(abs(bounds["min"].as_py()), abs(bounds["max"].as_py())) >= EXACT_FLOAT:
            return pd.Series(column.to_pylist(), dtype=object)
    if pa.types.is_null(kind):
        return pd.Series([float("nan")] * len(column))
    if kind == pa.time64("ns"):
        column = column.cast(pa.time64("us"), safe=False)
    series: pd.Series = column.to_pandas()
    return series


def _whole(column: Any) -> Any:
    """Convert decimals without a fraction to 64-bit integers, if all of them fit; otherwise return them unchanged."""
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
