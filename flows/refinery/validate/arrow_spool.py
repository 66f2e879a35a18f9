"""Coerced rows that wait: in memory while they are few, then in an Arrow IPC file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.refinery.read.header import GOOD_ROW_NUMBER
from flows.refinery.validate.coercion import ARROW_TYPES, dtype_of, to_arrow
from flows.refinery.validate.column_text import pandas_column
from flows.refinery.validate.moments import time_text
from flows.refinery.validate.sorted_numbers import positions_of

ROW_NUMBER = GOOD_ROW_NUMBER  # the row's number in the source; never published
_IN_MEMORY_BYTES = 32 << 20
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")


class ArrowSpool:
    """Rows in the contract's types, each with its row number, in an Arrow IPC file.

    Args:
        is_large: whether the rows of the file are compressed, which takes four times as long as writing them.

    Attributes:
        rows: rows written so far.
    """

    def __init__(self, path: Path, kinds: Mapping[str, str], *, is_large: bool = False) -> None:
        self.path = path
        self.kinds = dict(kinds)
        self.rows = 0
        self._nulls: Counter[str] = Counter()
        self._excluded: np.ndarray | None = None
        self._options = _COMPRESSED if is_large else None
        self._in_memory: list[pa.RecordBatch] = []
        self._bytes = 0
        self._writer: Any = None

    @property
    def nulls(self) -> set[str]:
        """Return the columns in which some row has no value."""
        return {name for name, count in self._nulls.items() if count}

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, as `to_batch` gives them."""
        self._nulls.update({name: batch.column(name).null_count for name in self.kinds})
        self.rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._bytes <= _IN_MEMORY_BYTES:
            self._in_memory.append(batch)
            return
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self.path), _schema(self.kinds), options=self._options)
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Finish the file. May be called again."""
        if self._writer is not None:
            self._writer.close()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as they were written, one batch at a time, without the excluded ones."""
        for batch in chain(self._in_memory, self._batches_on_disk()):
            yield batch if self._excluded is None else self._without(batch, self._excluded)

    def _batches_on_disk(self) -> Iterator[pa.RecordBatch]:
        if self._writer is None:
            return
        with pa.OSFile(str(self.path)) as source:
            reader = pa.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)

    @staticmethod
    def _without(batch: pa.RecordBatch, excluded: np.ndarray) -> pa.RecordBatch:
        kept = np.ones(batch.num_rows, dtype=bool)
        kept[positions_of(excluded, _numbers(batch))] = False
        return batch if kept.all() else batch.filter(pa.array(kept))

    def exclude(self, row_numbers: np.ndarray) -> None:
        """Leave out some rows from now on.

        Args:
            row_numbers: sorted.
        """
        for batch in self.batches():
            left_out = batch.take(pa.array(positions_of(row_numbers, _numbers(batch))))
            self._nulls.subtract({name: left_out.column(name).null_count for name in self.kinds})
            self.rows -= left_out.num_rows
        self._excluded = row_numbers


def _numbers(batch: pa.RecordBatch) -> np.ndarray:
    numbers: np.ndarray = batch.column(ROW_NUMBER).to_numpy()
    return numbers


def to_batch(frame: pd.DataFrame, row_numbers: np.ndarray, kinds: Mapping[str, str]) -> pa.RecordBatch:
    """Some columns of coerced rows, as they are kept."""
    arrays = [to_arrow(frame[name], kind) for name, kind in kinds.items()]
    return pa.RecordBatch.from_arrays([*arrays, pa.array(row_numbers)], schema=_schema(kinds))


def no_rows(kinds: Mapping[str, str]) -> pa.RecordBatch:
    """Return a batch without rows."""
    return pa.RecordBatch.from_pylist([], schema=_schema(kinds))


def _schema(kinds: Mapping[str, str]) -> pa.Schema:
    fields = [pa.field(name, ARROW_TYPES[kind]) for name, kind in kinds.items()]
    return pa.schema([*fields, pa.field(ROW_NUMBER, pa.int64())])


def as_judged(data: pa.RecordBatch | pa.Table, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Return rows as GX judges them: with a RangeIndex, timestamps in UTC without a zone, times as text."""
    columns = {}
    for name, kind in kinds.items():
        array = data.column(name)
        if kind in ("timestamp", "date"):
            array = array.cast(pa.timestamp("us"))
        elif kind == "time":
            array = time_text(array)
        columns[name] = pandas_column(array, dtype_of(kind, nulls=array.null_count > 0))
    return pd.DataFrame(columns, index=pd.RangeIndex(len(data)), copy=False)
