"""Open Parquet files for writing, with dictionaries only where they save space."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

_SAMPLED = 20_000
_DISK = pyarrow.fs.LocalFileSystem()


def parquet_writer(path: Path, first: pa.Table, compression: str) -> pq.ParquetWriter:
    """Open a Parquet file for tables with the same schema as `first`. Only lists and columns whose values repeat in
    `first` get a dictionary, because in other columns it would cost time and space."""
    sample = first.slice(0, _SAMPLED)
    repeating = []
    for field in first.schema:
        if pa.types.is_list(field.type):
            repeating.append(f"{field.name}.list.element")
        elif not pa.types.is_nested(field.type) and _repeats(sample[field.name]):
            repeating.append(field.name)
    return pq.ParquetWriter(
        str(path), first.schema, filesystem=_DISK, compression=compression, use_dictionary=repeating or False
    )


def _repeats(values: pa.ChunkedArray) -> bool:
    try:
        # For most columns whose values do not repeat, a third of the sample is enough to see that.
        parts = values.slice(0, len(values) // 3), values
        return all(pc.count_distinct(part).as_py() * 4 <= len(values) for part in parts)
    except pa.ArrowNotImplementedError:
        return True
