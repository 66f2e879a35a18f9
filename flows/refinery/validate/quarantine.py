"""The quarantine file: bad rows as they were, each with its row number, the rules that it broke and their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flows.refinery.read.partition import Misfit, Partition
from flows.refinery.read.reserved_columns import QUARANTINE_COLUMNS
from flows.refinery.validate.coercion import as_text
from flows.refinery.validate.rule_masks import has_bit, no_bits, set_bit

OWN_COLUMNS = QUARANTINE_COLUMNS
ROW_NUMBER, RULES, VALUES, RAW = OWN_COLUMNS


@dataclass(frozen=True)
class RowRule:
    """A rule that single rows can break.

    Attributes:
        id: as in the checks.
        columns: whose values are the offending ones.
        blocking: whether a row that breaks it is quarantined.
        expectation: the position of the expectation among the contract's; None for rules of type and presence.
    """

    id: str
    columns: tuple[str, ...]
    blocking: bool = True
    expectation: int | None = None


class QuarantineWriter:
    """Writes bad rows to a Parquet file, partition by partition.

    The file has the columns _row_number (int64), _rules (list of text), _values (list of text, one per rule), _raw (the
    text of a row that could not be decoded), and the source's columns as text.

    Attributes:
        path: None as long as there was no bad row: there is no file then.
        rows: rows written so far.
    """

    def __init__(self, path: Path, rules: Sequence[RowRule], columns: Sequence[str]) -> None:
        self.path: Path | None = None
        self._destination = path
        self._rules = tuple(rules)
        self._columns = tuple(column for column in columns if column not in OWN_COLUMNS)
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def write(self, partition: Partition, positions: np.ndarray, bits: np.ndarray) -> None:
        """Add bad rows of one partition, and its misfits.

        Args:
            positions: sorted positions of the bad rows in the partition's frame.
            bits: their bits, rows x words.
        """
        parts = []
        if len(positions):
            parts.append(self._bad_rows(partition, positions, bits))
        if partition.misfits:
            parts.append(self._misfits(partition.misfits))
        if not parts:
            return
        table = pa.concat_tables(parts)
        if len(parts) > 1:
            table = table.sort_by(ROW_NUMBER)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._destination, self._schema, compression="zstd")
            self.path = self._destination
        self._writer.write_table(table)
        self.rows += table.num_rows

    def close(self) -> None:
        """Finish the file. May be called again."""
        if self._writer is not None and self._writer.is_open:
            self._writer.close()

    @property
    def _schema(self) -> pa.Schema:
        own = [
            pa.field(ROW_NUMBER, pa.int64()),
            pa.field(RULES, pa.list_(pa.string())),
            pa.field(VALUES, pa.list_(pa.string())),
            pa.field(RAW, pa.string()),
        ]
        return pa.schema([*own, *(pa.field(column, pa.string()) for column in self._columns)])

    def _bad_rows(self, partition: Partition, positions: np.ndarray, bits: np.ndarray) -> pa.Table:
        raw = partition.texts(positions) if partition.texts else partition.frame.iloc[positions]
        texts = {column: _text_array(raw[column]) for column in raw.columns}
        nothing = pa.nulls(len(positions), pa.string())
        rules, values = self._broken(texts, bits, len(positions))
        columns = [pa.array(partition.row_numbers[positions]), rules, values, nothing]
        columns += [texts.get(column, nothing) for column in self._columns]
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _broken(self, texts: dict[str, pa.Array], bits: np.ndarray, rows: int) -> tuple[pa.Array, pa.Array]:
        """Two list columns: the ids of the rules that each row broke, and the offending values."""
        places, names, values = [], [], []
        for position, rule in enumerate(self._rules):
            broken = np.flatnonzero(has_bit(bits, position))
            if len(broken):
                places.append(broken)
                names.append(np.full(len(broken), position))
                values.append(_offending(rule, texts, broken))
        place = np.concatenate(places) if places else np.empty(0, dtype=np.int64)
        order = np.argsort(place, kind="stable")  # rules of one row stay in the contract's order
        offsets = pa.array(np.searchsorted(place[order], np.arange(rows + 1)).astype(np.int32))
        ids = pa.array([rule.id for rule in self._rules], pa.string())
        name = pa.array(np.concatenate(names)[order] if names else place)
        value = pa.concat_arrays(values).take(pa.array(order)) if values else pa.array([], pa.string())
        return pa.ListArray.from_arrays(offsets, ids.take(name)), pa.ListArray.from_arrays(offsets, value)

    def _misfits(self, misfits: Sequence[Misfit]) -> pa.Table:
        columns = [
            pa.array([misfit.row_number for misfit in misfits], pa.int64()),
            pa.array([[misfit.reason] for misfit in misfits], pa.list_(pa.string())),
            pa.array([[None]] * len(misfits), pa.list_(pa.string())),
            pa.array([misfit.raw for misfit in misfits], pa.string()),
            *(pa.nulls(len(misfits), pa.string()) for _ in self._columns),
        ]
        return pa.Table.from_arrays(columns, schema=self._schema)


class BadRows:
    """Which rows are bad and which rules they broke: 8 bytes and one bit per rule for each."""

    def __init__(self, rules: Sequence[RowRule]) -> None:
        self._rules = tuple(rules)
        self._numbers: list[np.ndarray] = []
        self._bits: list[np.ndarray] = []

    def add(self, row_numbers: np.ndarray, bits: np.ndarray) -> None:
        """Take in bad rows; their numbers are greater than all before."""
        self._numbers.append(row_numbers)
        self._bits.append(bits)

    def with_late(self, late: Sequence[tuple[int, np.ndarray]]) -> BadRows:
        """The same with rules that were found broken only at the end: (rule, sorted row numbers)."""
        numbers, bits = self._all()
        newly_bad = (rows for rule, rows in late if self._rules[rule].blocking)
        merged = np.unique(np.concatenate([numbers, *newly_bad]))
        merged_bits = no_bits(len(merged), len(self._rules))
        merged_bits[np.searchsorted(merged, numbers)] = bits
        for rule, rows in late:
            among_bad = rows[np.isin(rows, merged)]
            set_bit(merged_bits, np.searchsorted(merged, among_bad), rule)
        result = BadRows(self._rules)
        result.add(merged, merged_bits)
        return result

    def of(self, row_numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of some sorted row numbers are bad: their positions, and their bits."""
        numbers, bits = self._all()
        if not len(numbers):
            return np.empty(0, dtype=np.int64), no_bits(0, len(self._rules))
        place = np.minimum(np.searchsorted(numbers, row_numbers), len(numbers) - 1)
        positions = np.flatnonzero(numbers[place] == row_numbers)
        return positions, bits[place[positions]]

    def counts(self) -> dict[str, int]:
        """Bad rows by the first rule that each broke."""
        _, bits = self._all()
        left = np.ones(len(bits), dtype=bool)
        counts = {}
        for position, rule in enumerate(self._rules):
            if not rule.blocking:
                continue
            first = left & has_bit(bits, position)
            broken = int(first.sum())
            if broken:
                counts[rule.id] = broken
                left &= ~first
        return counts

    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        if len(self._numbers) != 1:
            numbers = [np.empty(0, dtype=np.int64), *self._numbers]
            bits = [no_bits(0, len(self._rules)), *self._bits]
            self._numbers, self._bits = [np.concatenate(numbers)], [np.concatenate(bits)]
        return self._numbers[0], self._bits[0]


def _text_array(raw: pd.Series) -> pa.Array:
    array = pa.array(as_text(raw.reset_index(drop=True)), from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return array.cast(pa.string())


def _offending(rule: RowRule, texts: dict[str, pa.Array], rows: np.ndarray) -> pa.Array:
    """The text of what broke the rule: the value itself, or `column=value, ...` where it reads several columns."""
    taken: Callable[[str], pa.Array] = lambda column: texts[column].take(pa.array(rows))  # noqa: E731
    columns = [column for column in rule.columns if column in texts]
    if not columns:
        return pa.nulls(len(rows), pa.string())
    if len(columns) == 1 and len(rule.columns) == 1:
        return taken(columns[0])
    values = [taken(column).to_pylist() for column in columns]
    said = [
        ", ".join(f"{column}={value}" for column, value in zip(columns, row, strict=True) if value is not None)
        for row in zip(*values, strict=True)
    ]
    return pa.array(said, pa.string())
