"""Coerced rows on local disk: Arrow IPC files that are written and read partition by partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.read.reserved_columns import GOOD_ROW_NUMBER
from flows.refinery.validate.coercion import ARROW_TYPES, dtype_of, time_text, to_arrow
from flows.refinery.validate.header_plan import Plan
from flows.refinery.validate.rules import Rule

ROW_NUMBER = GOOD_ROW_NUMBER  # the row's number in the source; never published
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class FrameFile:
    """Rows in the contract's types, each with its row number.

    Attributes:
        rows: rows written so far.
        nulls: the columns in which a missing value was written.
    """

    def __init__(self, path: Path, kinds: Mapping[str, str]) -> None:
        self.path = path
        self.kinds = dict(kinds)
        self.rows = 0
        self.nulls: set[str] = set()
        fields = [pa.field(name, ARROW_TYPES[kind]) for name, kind in self.kinds.items()]
        self._schema = pa.schema([*fields, pa.field(ROW_NUMBER, pa.int64())])
        self._writer = pa.ipc.new_file(str(path), self._schema, options=_OPTIONS)
        self._is_open = True

    def write(self, frame: pd.DataFrame, row_numbers: np.ndarray) -> None:
        """Add rows; the frame has at least the columns of this file."""
        arrays = [to_arrow(frame[name], kind) for name, kind in self.kinds.items()]
        for name, array in zip(self.kinds, arrays, strict=True):
            if array.null_count:
                self.nulls.add(name)
        batch = pa.RecordBatch.from_arrays([*arrays, pa.array(row_numbers)], schema=self._schema)
        self._writer.write_batch(batch)
        self.rows += len(row_numbers)

    def close(self) -> None:
        """Finish the file. May be called again."""
        if self._is_open:
            self._writer.close()
            self._is_open = False

    def without(self, row_numbers: np.ndarray) -> FrameFile:
        """The same file without some rows."""
        result = FrameFile(self.path.with_name(f"late-{self.path.name}"), self.kinds)
        condemned = pa.array(row_numbers)
        for batch in read_batches(self.path):
            kept = batch.filter(pc.invert(pc.is_in(batch.column(ROW_NUMBER), condemned)))
            for name in self.kinds:
                if kept.column(name).null_count:
                    result.nulls.add(name)
            result._writer.write_batch(kept)
            result.rows += kept.num_rows
        result.close()
        self.path.unlink()
        return result


class SideFile:
    """All rows, good and bad, of the columns that rules need which are judged at the end."""

    def __init__(self, path: Path, plan: Plan, rules: Sequence[Rule]) -> None:
        available = list(plan.columns)
        needed = {name for rule in rules for name in rule.columns_needed(available)}
        self._kinds = {name: kind for name, kind in plan.kinds.items() if name in needed}
        self._path = path
        self._file = FrameFile(path, self._kinds) if rules else None

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._file.rows if self._file else 0

    def write(self, frame: pd.DataFrame, row_numbers: np.ndarray) -> None:
        """Add the rows of a partition, all of them."""
        if self._file:
            self._file.write(frame, row_numbers)

    def close(self) -> None:
        """Finish the file. May be called again."""
        if self._file:
            self._file.close()

    def batches(self) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        """Read it again as it was written, with the row numbers."""
        for batch in read_batches(self._path):
            yield as_judged(batch, self._kinds), batch.column(ROW_NUMBER).to_numpy()

    def read(self, rule: Rule) -> tuple[pd.DataFrame, np.ndarray]:
        """The columns that one rule needs, of all rows at once."""
        kinds = {name: self._kinds[name] for name in rule.columns_needed(list(self._kinds))}
        batches = [batch.select([*kinds, ROW_NUMBER]) for batch in read_batches(self._path)]
        schema = pa.schema([*((n, ARROW_TYPES[k]) for n, k in kinds.items()), (ROW_NUMBER, pa.int64())])
        table = pa.Table.from_batches(batches, schema=schema).combine_chunks()
        return as_judged(table, kinds), table.column(ROW_NUMBER).to_numpy()


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of an Arrow IPC file, one at a time."""
    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)


def as_judged(data: pa.RecordBatch | pa.Table, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Rows as GX judges them: with a RangeIndex, timestamps in UTC without a zone, times as text."""
    columns = {}
    for name, kind in kinds.items():
        array = data.column(name)
        if kind in ("timestamp", "date"):
            array = array.cast(pa.timestamp("us"))
        elif kind == "time":
            array = time_text(array)
        columns[name] = pandas_column(array, dtype_of(kind, nulls=array.null_count > 0))
    return pd.DataFrame(columns, index=pd.RangeIndex(len(data)))


def pandas_column(array: pa.Array | pa.ChunkedArray, dtype: str) -> pd.Series:
    """An Arrow column as a pandas column of a dtype."""
    if dtype == "str":
        return pd.Series(pd.array(array.cast(pa.string()), dtype="str"))
    if dtype in ("Int64", "boolean"):
        return pd.Series(array.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get))
    column: pd.Series = array.to_pandas().astype(dtype)
    return column
