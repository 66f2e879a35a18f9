"""What a file's columns alone decide: those that it lacks, those that the contract does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.refinery.checks import Check, RejectionReason
from flows.refinery.contract.model import Contract
from flows.refinery.validate.checks_of_rules import column_list, column_of, expected_of
from flows.refinery.validate.header_plan import Header, Plan
from flows.refinery.validate.rules import Method, Rule

UNKNOWN_COLUMNS, MISSING_COLUMNS = "unknown_columns", "missing_columns"


@dataclass(frozen=True)
class ColumnFindings:
    """What the columns show.

    Attributes:
        judged: the rules whose columns are there.
    """

    checks: tuple[Check, ...]
    reasons: tuple[RejectionReason, ...]
    judged: tuple[Rule, ...]


def judge_columns(contract: Contract, plan: Plan, header: Header, rules: Sequence[Rule]) -> ColumnFindings:
    """Hold a file's header against the contract."""
    checks: list[Check] = []
    reasons: list[RejectionReason] = []
    missing = [name for name in plan.filled if contract.columns[name].required]
    seen, known = list(header.columns), list(contract.columns)
    for rule, names, policy, fault in (
        (MISSING_COLUMNS, missing, contract.missing_columns, "lacks {}, which the contract requires"),
        (UNKNOWN_COLUMNS, list(plan.unknown), contract.unknown_columns, "has {}, which the contract does not know"),
    ):
        if not names:
            continue
        severity = "critical" if policy == "freeze" else "warning"
        checks.append(
            Check(
                rule=rule,
                expectation=rule,
                column=None,
                kind="columns",
                severity=severity,
                success=False,
                observed=seen,
                expected=known,
            )
        )
        if policy == "freeze":
            message = f"the file {fault.format(column_list(names))}"
            reasons.append(RejectionReason(code=rule, message=message, observed=seen, expected=known))
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
        checks.append(
            Check(
                rule=gx_rule.id,
                expectation=gx_rule.name,
                column=column_of(gx_rule),
                kind=gx_rule.level,
                severity=gx_rule.severity,
                success=False,
                expected=expected,
            )
        )
        if gx_rule.severity != "info":
            message = f"{gx_rule.id} cannot be judged: the file has no {column_list(absent)}"
            reasons.append(RejectionReason(code=gx_rule.id, message=message, observed=seen, expected=expected))
    return ColumnFindings(tuple(checks), tuple(reasons), tuple(judged))
