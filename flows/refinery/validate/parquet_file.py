"""Write Parquet files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_SAMPLED = 20_000


def parquet_writer(path: Path, first: pa.Table, compression: str) -> pq.ParquetWriter:
    """Open a Parquet file for tables with the schema of the first one. Only columns whose values repeat get a
    dictionary: in others it would cost time and space."""
    sample = first.slice(0, _SAMPLED)
    repeating = []
    for field in first.schema:
        if pa.types.is_list(field.type):
            repeating.append(f"{field.name}.list.element")
        elif not pa.types.is_nested(field.type) and _repeats(sample[field.name]):
            repeating.append(field.name)
    return pq.ParquetWriter(path, first.schema, compression=compression, use_dictionary=repeating or False)


def _repeats(values: pa.ChunkedArray) -> bool:
    try:
        # Most columns whose values do not repeat show it in a third of the sample.
        parts = values.slice(0, len(values) // 3), values
        return all(pc.count_distinct(part).as_py() * 4 <= len(values) for part in parts)
    except pa.ArrowNotImplementedError:
        return True
