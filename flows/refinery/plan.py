"""How a file is refined: what its header and the contract together say of each column, and the rules that rows can break."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from flows.refinery.coercion import MISSING_RULE, TYPE_RULES, Kind, infer_kind, join_kinds
from flows.refinery.contract_model import Column, Contract
from flows.refinery.quarantine import RowRule
from flows.refinery.rules import Rule

UNKNOWN_COLUMN, MISSING_COLUMN = "unknown_column", "missing_column"


@dataclass(frozen=True)
class Header:
    """What is known of a file's columns: their order, and the types of those that the contract does not name."""

    columns: tuple[str, ...] = ()
    kinds: Mapping[str, Kind | None] = field(default_factory=dict)

    def joined(self, frame: pd.DataFrame, declared: Iterable[str], infer: bool) -> Header:
        """The header after one more partition."""
        columns = (*self.columns, *(name for name in map(str, frame.columns) if name not in self.columns))
        if not infer:
            return Header(columns)
        kinds = dict(self.kinds)
        for name in frame.columns:
            if name not in declared and kinds.get(name) != "string":
                kinds[name] = join_kinds(kinds.get(name), infer_kind(frame[name]))
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
                present[name] = Column(type=header.kinds.get(name) or "string")
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
