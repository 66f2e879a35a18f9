"""Plan how the partitions of a file are checked. The header and the contract decide which columns are checked, and with
which types and rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.contract.model import Column, Contract
from flows.refinery.read.columns import missing_texts, missing_unless_text
from flows.refinery.read.partition import Partition, SourceFormat
from flows.refinery.read.partition_spool import PartitionSpool
from flows.refinery.validate.coercion import MISSING_RULE, TYPE_RULES, dtype_of
from flows.refinery.validate.column_text import Unreadable
from flows.refinery.validate.expectations import Judge, judge_of
from flows.refinery.validate.inference import Inferred, infer_kind, join_kinds, settled_kind
from flows.refinery.validate.quarantine import RowRule
from flows.refinery.validate.rules import Method, Rule

UNKNOWN_COLUMN, MISSING_COLUMN = "unknown_column", "missing_column"


@dataclass(frozen=True)
class Header:
    """The columns of a file in their order, the inferred types of columns that the contract does not declare, and the
    format in which the file is written."""

    columns: tuple[str, ...] = ()
    kinds: Mapping[str, Inferred | None] = field(default_factory=dict)
    source_format: SourceFormat = field(default_factory=lambda: SourceFormat(type="csv"))

    @classmethod
    def of_file(
        cls, partitions: Iterator[Partition], contract: Contract, waiting: PartitionSpool
    ) -> tuple[Header, Iterator[Partition]]:
        """Return a file's header, and its partitions. If later partitions may change the header, all of them are first
        read into `waiting`. In JSON, later rows may have more columns, and in all formats, later values may widen the
        type of an undeclared column."""
        first = next(partitions)
        header, partitions = cls().joined(first, contract), chain([first], partitions)
        takes_undeclared = contract.unknown_columns == "evolve" and not contract.columns.keys() >= set(header.columns)
        if first.source_format.type not in ("json", "jsonl") and not takes_undeclared:
            return header, partitions
        del first
        for partition in partitions:
            header = header.joined(partition, contract)
            waiting.append(partition)
        return header, waiting.drain()

    def joined(self, partition: Partition, contract: Contract) -> Header:
        """Return this header, extended with the columns and types in one more partition."""
        frame, found = partition.frame, partition.source_format
        columns = tuple(dict.fromkeys((*self.columns, *map(str, frame.columns))))
        if contract.unknown_columns != "evolve":
            return Header(columns, source_format=found)
        kinds = dict(self.kinds)
        for name in frame.columns:
            if name not in contract.columns and kinds.get(name) != "string":
                kind = infer_kind(frame[name], found, missing_unless_text(contract))
                kinds[name] = join_kinds(kinds.get(name), kind)
        return Header(columns, kinds, found)


@dataclass(frozen=True)
class HeaderPlan:
    """How the partitions of a file are checked, once its header is known. A plan can be pickled."""

    file_columns: tuple[str, ...]  # all columns of the file, in its order
    # the columns to check, with their types: first those that are in the file, then those that are filled in
    columns: Mapping[str, Column]
    filled: tuple[str, ...]  # the declared columns that the file lacks
    unknown: tuple[str, ...]  # the columns of the file that are not published
    # the rules on types and columns, then all expectations; a bad row counts for the first blocking rule that it breaks
    row_rules: tuple[RowRule, ...]
    judged: tuple[Rule, ...]  # the expectations whose columns exist in the file or are filled in
    source_format: SourceFormat  # how the file is written

    @classmethod
    def of(cls, contract: Contract, rules: Sequence[Rule], header: Header) -> HeaderPlan:
        declared = contract.columns
        present: dict[str, Column] = {}
        for name in header.columns:
            if name in declared:
                present[name] = declared[name].model_copy(update={"missing_values": missing_texts(contract, name)})
            elif contract.unknown_columns == "evolve":
                kind = settled_kind(header.kinds.get(name))
                present[name] = Column(type=kind, missing_values=missing_unless_text(contract))
        unknown = tuple(name for name in header.columns if name not in present)
        filled = tuple(name for name in declared if name not in present)
        columns = {**present, **{name: declared[name] for name in filled}}
        return cls(
            file_columns=header.columns,
            columns=columns,
            filled=filled,
            unknown=unknown,
            row_rules=tuple(_row_rules(contract, rules, present, filled, unknown)),
            judged=tuple(rule for rule in rules if not rule.columns_missing(header.columns, tuple(columns))),
            source_format=header.source_format,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return only the fields for pickling. Cached properties are left out, because each process creates its own
        judge."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    @cached_property
    def judge(self) -> Judge | None:
        """Return the judge that checks the expectations in `judged`, or None if there are none."""
        return judge_of(self.judged) if self.judged else None

    @cached_property
    def unreadable(self) -> defaultdict[str, Unreadable]:
        """Return, for each column, the unreadable strings that were found in partitions so far."""
        return defaultdict(Unreadable)

    @cached_property
    def places(self) -> dict[str, int]:
        """Return the position of each row rule in `row_rules`, by the rule's ID."""
        return {rule.id: place for place, rule in enumerate(self.row_rules)}

    @cached_property
    def blocking(self) -> np.ndarray:
        """Return the positions of the row rules whose failure quarantines a row."""
        return np.array([place for place, rule in enumerate(self.row_rules) if rule.blocking], dtype=np.int64)

    @cached_property
    def waits(self) -> bool:
        """Return whether all rows must wait, because a rule that may quarantine rows is checked at the end of the
        file."""
        late = {rule.id for rule in self.judged if rule.is_late}
        return any(rule.blocking and rule.id in late for rule in self.row_rules)

    @cached_property
    def asks_structure(self) -> bool:
        """Return whether a rule checks the names and types of the file's columns."""
        return any(rule.method is Method.STRUCTURE for rule in self.judged)

    @cached_property
    def judged_kinds(self) -> dict[str, str]:
        """Return the types of the columns that expectations read, by column name."""
        return self._kinds_for(self.judged)

    @cached_property
    def whole_file_kinds(self) -> dict[str, str]:
        """Return the types of the columns that must be kept for expectations on the whole file, by column name."""
        return self._kinds_for(rule for rule in self.judged if rule.is_late)

    def _kinds_for(self, rules: Iterable[Rule]) -> dict[str, str]:
        needed = {name for rule in rules for name in rule.columns_needed(list(self.columns))}
        return {name: kind for name, kind in self.kinds.items() if name in needed}

    @cached_property
    def nullable(self) -> frozenset[str]:
        """Return the columns in which good rows may have missing values."""
        return frozenset(name for name, column in self.columns.items() if column.nullable or name in self.filled)

    @cached_property
    def raw_columns(self) -> list[str]:
        """Return the file's columns whose original values cannot be recovered from the converted columns."""
        return [name for name in self.file_columns if self.kinds.get(name) != "string"]

    def raw_place(self, name: str) -> int:
        """Return the position of a column's original values in a batch that has the converted columns, the row numbers
        and `raw_columns`, in this order."""
        if name in self.raw_columns:
            return len(self.columns) + 1 + self.raw_columns.index(name)
        return list(self.columns).index(name)

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Return the type of each column that is checked, by column name."""
        return {name: column.type for name, column in self.columns.items()}

    def flag(self, masks: np.ndarray, rule_id: str, rows: Any) -> None:
        """Mark rows as breaking a rule, if the plan has that rule.

        Args:
            masks: an array of shape (row rules, rows), which is changed.
            rows: positions, a slice or a mask.
        """
        place = self.places.get(rule_id)
        if place is not None:
            masks[place, rows] = True

    def structure(self, nulls: Collection[str]) -> pd.DataFrame:
        """Return a frame without rows that has the file's columns in their order, with the dtypes in which GX checks
        them.

        Args:
            nulls: the columns in which values are missing.
        """
        kinds = self.kinds
        dtypes = {name: dtype_of(kinds.get(name, "string"), nulls=name in nulls) for name in self.file_columns}
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()})


def _row_rules(
    contract: Contract,
    rules: Sequence[Rule],
    present: Mapping[str, Column],
    filled: Sequence[str],
    unknown: Sequence[str],
) -> Iterator[RowRule]:
    yield RowRule(UNKNOWN_COLUMN, tuple(unknown))
    for name in filled:
        if contract.columns[name].required and contract.missing_columns == "quarantine":
            yield RowRule(f"{MISSING_COLUMN}({name})", (name,))
    for name, column in present.items():
        yield RowRule(f"{TYPE_RULES[column.type]}({name})", (name,))
        if not column.nullable:
            yield RowRule(f"{MISSING_RULE}({name})", (name,))
    for rule in rules:
        yield RowRule(rule.id, rule.columns, blocking=rule.may_quarantine, is_expectation=True)
