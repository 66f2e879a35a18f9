"""What a file's columns alone decide: those that it lacks, those that the contract does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.refinery.contract.model import Contract
from flows.refinery.judging.plan import Header, Plan
from flows.refinery.judging.rules import Method, Rule
from flows.refinery.judging.tallies import Reason, Tally, column_list, column_of, expected_of

UNKNOWN_COLUMNS, MISSING_COLUMNS = "unknown_columns", "missing_columns"


@dataclass(frozen=True)
class ColumnFindings:
    """What the columns show.

    Attributes:
        judged: the rules whose columns are there.
    """

    tallies: tuple[Tally, ...]
    reasons: tuple[Reason, ...]
    judged: tuple[Rule, ...]


def judge_columns(contract: Contract, plan: Plan, header: Header, rules: Sequence[Rule]) -> ColumnFindings:
    """Hold a file's header against the contract."""
    tallies: list[Tally] = []
    reasons: list[Reason] = []
    missing = [name for name in plan.filled if contract.columns[name].required]
    seen, known = list(header.columns), list(contract.columns)
    for rule, names, policy, fault in (
        (MISSING_COLUMNS, missing, contract.missing_columns, "lacks {}, which the contract requires"),
        (UNKNOWN_COLUMNS, list(plan.unknown), contract.unknown_columns, "has {}, which the contract does not know"),
    ):
        if not names:
            continue
        severity = "critical" if policy == "freeze" else "warning"
        tallies.append(Tally(rule, rule, None, "columns", severity, False, observed=seen, expected=known))
        if policy == "freeze":
            reasons.append(Reason(rule, f"the file {fault.format(column_list(names))}", seen, known))
    there = list(plan.columns)
    judged = []
    for gx_rule in rules:
        # A column that is filled in has no type in the file.
        asks_type = gx_rule.method is Method.STRUCTURE and "column" in gx_rule.arguments
        absent = gx_rule.columns_missing(seen if asks_type else there)
        if not absent:
            judged.append(gx_rule)
            continue
        expected = expected_of(gx_rule)
        tallies.append(
            Tally(
                gx_rule.id, gx_rule.name, column_of(gx_rule), gx_rule.level, gx_rule.severity, False, expected=expected
            )
        )
        if gx_rule.severity != "info":
            message = f"{gx_rule.id} cannot be judged: the file has no {column_list(absent)}"
            reasons.append(Reason(gx_rule.id, message, seen, expected))
    return ColumnFindings(tuple(tallies), tuple(reasons), tuple(judged))
