"""Check rules whose failing rows may be known only at the end of a file: rules on uniqueness, on the order of rows, and
on whole columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.refinery.errors import FileRejected
from flows.refinery.validate.aggregates import Counts
from flows.refinery.validate.batch_spool import BatchSpool
from flows.refinery.validate.expectations import Judge, Verdict
from flows.refinery.validate.rules import WHOLE_FILE_ROW_LIMIT, Method
from flows.refinery.validate.typed_rows import as_judged, numbers_of
from flows.refinery.validate.uniqueness import HashCollector, Rows, Take, duplicated_rows


class TooManyRowsToJudge(FileRejected):
    """The contract has an expectation that GX can check only on a whole column, but the file has more rows than Sluice
    keeps in memory."""


class WholeFileJudge:
    """Collects the hashes that uniqueness rules need, and returns the verdicts on all rules at the end of the file.

    Args:
        rows: a spool to which the caller must add all rows, good and bad. Its batches have the columns in `kinds`,
            followed by the row numbers.
        folder: an existing folder for hashes that do not fit in memory.
    """

    def __init__(self, judge: Judge, rows: BatchSpool, kinds: Mapping[str, str], folder: Path) -> None:
        self._judge, self._rows, self._kinds = judge, rows, kinds
        self._collectors = {
            position: HashCollector(folder / f"hashes-{position}")
            for position, rule in enumerate(judge.rules)
            if rule.method is Method.UNIQUE
        }

    def take(self, key_hashes: Sequence[np.ndarray | None]) -> None:
        """Add the hashes of the rows in the next partition: one array for each rule, or None if the rule needs none."""
        for position, collector in self._collectors.items():
            hashes = key_hashes[position]
            if hashes is not None:
                collector.add(hashes)

    def verdict(self, position: int, state: Any, structure: pd.DataFrame) -> tuple[Verdict, np.ndarray]:
        """Return the verdict on the rule at `position`, and the sorted row numbers of the failing rows that could not
        be found in single partitions. `state` is the merged state of all partitions. Raise TooManyRowsToJudge if the
        rule needs whole columns and the file has too many rows."""
        rule = self._judge.rules[position]
        if rule.method is Method.UNIQUE:
            rows = duplicated_rows(self._collectors[position], lambda: self._keys(position), rule.keep)
            counts = replace(state or Counts(0, 0, 0), failing=len(rows))
            return self._judge.verdict(position, counts, structure), rows
        if rule.method is Method.WHOLE:
            return self._judge_entire(position)
        broken = state.broken_rows if rule.method is Method.ORDER else ()
        return self._judge.verdict(position, state, structure), np.array(sorted(broken), dtype=np.int64)

    def _judge_entire(self, position: int) -> tuple[Verdict, np.ndarray]:
        rule = self._judge.rules[position]
        if self._rows.rows > WHOLE_FILE_ROW_LIMIT:
            raise TooManyRowsToJudge(
                f"{rule.id} is checked on whole columns of at most {WHOLE_FILE_ROW_LIMIT:,} rows;"
                f" the file has {self._rows.rows:,}"
            )
        kinds, batches = self._columns_of(position)
        table = pa.Table.from_batches(batches).combine_chunks()
        verdict, failing = self._judge.judge_entire(position, as_judged(table, kinds))
        return verdict, numbers_of(table)[failing]

    def _keys(self, position: int) -> Iterator[Take]:
        kinds, batches = self._columns_of(position)

        def take(batch: pa.RecordBatch, places: np.ndarray) -> Rows:
            taken = batch.take(pa.array(places))
            keys = self._judge.key_rows(position, as_judged(taken, kinds))
            return keys, numbers_of(taken)[keys.index.to_numpy()]

        for batch in batches:
            yield partial(take, batch)

    def _columns_of(self, position: int) -> tuple[dict[str, str], Iterator[pa.RecordBatch]]:
        """Return the types of the columns that a rule needs, and batches with only these columns and the row
        numbers."""
        names = list(self._kinds)
        needed = self._judge.rules[position].columns_needed(names)
        places = [*map(names.index, needed), len(names)]
        return {name: self._kinds[name] for name in needed}, self._rows.columns(places)
