"""How a file is refined: what its header and the contract say of each column, and the rules that rows can break."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.contract.model import Column, Contract
from flows.refinery.read.partition import Partition
from flows.refinery.validate.coercion import (
    MISSING_RULE,
    TYPE_RULES,
    Inferred,
    dtype_of,
    infer_kind,
    join_kinds,
    settled_kind,
)
from flows.refinery.validate.quarantine import RowRule
from flows.refinery.validate.rule_masks import no_bits, set_bit
from flows.refinery.validate.rules import Rule

UNKNOWN_COLUMN, MISSING_COLUMN = "unknown_column", "missing_column"


@dataclass(frozen=True)
class Header:
    """What is known of a file's columns: their order, and the types of those that the contract does not name."""

    columns: tuple[str, ...] = ()
    kinds: Mapping[str, Inferred | None] = field(default_factory=dict)

    def joined(self, partition: Partition, declared: Collection[str], *, infer: bool) -> Header:
        """The header after one more partition."""
        frame = partition.frame
        columns = (*self.columns, *(name for name in map(str, frame.columns) if name not in self.columns))
        if not infer:
            return Header(columns)
        kinds = dict(self.kinds)
        for name in frame.columns:
            if name not in declared and kinds.get(name) != "string":
                kinds[name] = join_kinds(kinds.get(name), infer_kind(frame[name], partition.source_format))
        return Header(columns, kinds)


@dataclass(frozen=True)
class Plan:
    """How a file with a known header is refined.

    Attributes:
        columns: every column to be judged, with its type; file order, then columns that are filled in.
        filled: declared columns that the file lacks.
        unknown: columns of the file that are not published.
        row_rules: all rules that single rows can break, in the order in which a bad row is counted.
    """

    columns: Mapping[str, Column]
    filled: tuple[str, ...]
    unknown: tuple[str, ...]
    row_rules: tuple[RowRule, ...]
    places: Mapping[str, int]

    @classmethod
    def of(cls, contract: Contract, rules: Sequence[Rule], header: Header) -> Plan:
        declared = contract.columns
        present: dict[str, Column] = {}
        for name in header.columns:
            if name in declared:
                present[name] = declared[name]
            elif contract.unknown_columns == "evolve":
                present[name] = Column(type=settled_kind(header.kinds.get(name)))
        unknown = tuple(name for name in header.columns if name not in present)
        filled = tuple(name for name in declared if name not in present)
        row_rules = tuple(_row_rules(contract, rules, present, filled, unknown))
        return cls(
            columns={**present, **{name: declared[name] for name in filled}},
            filled=filled,
            unknown=unknown,
            row_rules=row_rules,
            places={rule.id: place for place, rule in enumerate(row_rules)},
        )

    def flag(self, bits: np.ndarray, rule_id: str, rows: Any) -> None:
        """Mark rows (positions, slice or mask) as breaking a rule, where the plan has that rule."""
        place = self.places.get(rule_id)
        if place is not None:
            set_bit(bits, rows, place)

    def is_bad(self, bits: np.ndarray) -> np.ndarray:
        """Which rows break a rule that sends them to quarantine."""
        blocking = no_bits(1, len(self.row_rules))
        for place, rule in enumerate(self.row_rules):
            if rule.blocking:
                set_bit(blocking, slice(None), place)
        bad: np.ndarray = (bits & blocking).any(axis=1)
        return bad

    def structure(self, file_columns: Sequence[str], nulls: Collection[str]) -> pd.DataFrame:
        """An empty frame with the file's own columns in their order, each in the type in which it was judged."""
        dtypes = {name: dtype_of(self.kinds.get(name, "string"), nulls=name in nulls) for name in file_columns}
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()})

    @property
    def kinds(self) -> dict[str, str]:
        """The contract's type of each column that is judged."""
        return {name: column.type for name, column in self.columns.items()}


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
    for position, rule in enumerate(rules):
        yield RowRule(rule.id, rule.columns, rule.severity != "info", position)
