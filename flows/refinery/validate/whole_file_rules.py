"""Rules whose failing rows show only at the end of the file: uniqueness, order, and what GX judges on whole columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.refinery.errors import FileRejected
from flows.refinery.validate.aggregates import Counts
from flows.refinery.validate.arrow_spool import ROW_NUMBER, ArrowSpool, as_judged
from flows.refinery.validate.expectations import Judge, Verdict
from flows.refinery.validate.rules import WHOLE_FILE_ROW_LIMIT, Method
from flows.refinery.validate.uniqueness import HashCollector, duplicated_rows


class TooManyRowsToJudge(FileRejected):
    """GX can judge an expectation only on a whole column, and the file has more rows than are held in memory."""


class WholeFileJudge:
    """Collects what rules need until the end of the file, then gives every verdict."""

    def __init__(self, judge: Judge, path: Path, kinds: dict[str, str], *, is_large: bool) -> None:
        self._judge = judge
        self._rows = ArrowSpool(path, kinds, is_large=is_large)
        self._collectors = {
            position: HashCollector() for position, rule in enumerate(judge.rules) if rule.method is Method.UNIQUE
        }

    def take(self, rows: pa.RecordBatch, key_hashes: Sequence[np.ndarray | None]) -> None:
        """Keep what one partition has: all its rows, good and bad, and by rule the hashes of its keys."""
        self._rows.write(rows)
        for position, collector in self._collectors.items():
            hashes = key_hashes[position]
            if hashes is not None:
                collector.add(hashes)

    def close(self) -> None:
        """Finish the file of rows. May be called again."""
        self._rows.close()

    def verdict(self, position: int, state: Any, structure: pd.DataFrame) -> tuple[Verdict, np.ndarray]:
        """Return the verdict on one rule, and the sorted numbers of rows that fail it and are not marked yet.

        Raises:
            TooManyRowsToJudge: the rule needs whole columns, and they are too long.
        """
        rule = self._judge.rules[position]
        if rule.method is Method.UNIQUE:
            rows = duplicated_rows(self._collectors[position], lambda: self._keys(position))
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
                f"{rule.id} is judged on the whole column, for at most {WHOLE_FILE_ROW_LIMIT:,} rows;"
                f" the file has {self._rows.rows:,}"
            )
        names = rule.columns_needed(list(self._rows.kinds))
        table = pa.Table.from_batches(batch.select([*names, ROW_NUMBER]) for batch in self._rows.batches())
        table = table.combine_chunks()
        frame = as_judged(table, {name: self._rows.kinds[name] for name in names})
        verdict, failing = self._judge.judge_entire(position, frame)
        return verdict, table.column(ROW_NUMBER).to_numpy()[failing]

    def _keys(self, position: int) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        for batch in self._rows.batches():
            keys = self._judge.key_rows(position, as_judged(batch, self._rows.kinds))
            yield keys, batch.column(ROW_NUMBER).to_numpy()[keys.index.to_numpy()]
