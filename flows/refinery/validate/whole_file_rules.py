"""Verdicts that need the end of the file: merged states, uniqueness, and what GX can only judge on whole columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.errors import FileRejected
from flows.refinery.validate.aggregates import Counts
from flows.refinery.validate.arrow_spool import SideFile
from flows.refinery.validate.expectations import Judge, Verdict
from flows.refinery.validate.rules import WHOLE_FILE_ROW_LIMIT, Method
from flows.refinery.validate.uniqueness import HashCollector, duplicated_rows


class TooManyRowsToJudge(FileRejected):
    """An expectation that GX can only judge on a whole column meets a file with more rows than are held in memory."""

    code = "too_many_rows_to_judge"


@dataclass(frozen=True)
class LateRows:
    """Rows that break a rule, as only the end of the file shows: the place of the row rule, and sorted row numbers."""

    row_rule: int
    row_numbers: np.ndarray


class LateJudge:
    """Collects what the late verdicts need, then gives every verdict."""

    def __init__(self, judge: Judge, side: SideFile) -> None:
        self._judge, self._side = judge, side
        self._collectors = {
            position: HashCollector() for position, rule in enumerate(judge.rules) if rule.method is Method.UNIQUE
        }

    def take(self, frame: pd.DataFrame) -> None:
        """See one partition, as it was judged."""
        for position, collector in self._collectors.items():
            collector.add(self._judge.key_rows(position, frame))

    def verdict(self, position: int, state: Any, structure: pd.DataFrame) -> tuple[Verdict, np.ndarray]:
        """The verdict on one rule, and the sorted numbers of rows that fail it without having been marked yet.

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
        if self._side.rows > WHOLE_FILE_ROW_LIMIT:
            raise TooManyRowsToJudge(
                f"{rule.id} is judged on the whole column, for at most {WHOLE_FILE_ROW_LIMIT:,} rows;"
                f" the file has {self._side.rows:,}"
            )
        frame, row_numbers = self._side.read(rule)
        verdict, failing = self._judge.judge_entire(position, frame)
        return verdict, row_numbers[failing]

    def _keys(self, position: int) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        for frame, row_numbers in self._side.batches():
            keys = self._judge.key_rows(position, frame)
            yield keys, row_numbers[keys.index.to_numpy()]
