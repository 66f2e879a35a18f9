"""What a file's columns alone decide: those that it lacks, those that the contract does not know."""

from __future__ import annotations

from collections.abc import Sequence

from flows.refinery.checks import Check, RejectionReason
from flows.refinery.contract.model import Contract
from flows.refinery.validate.checks_of_rules import column_list, failed_check, unjudged_check
from flows.refinery.validate.header_plan import HeaderPlan
from flows.refinery.validate.rules import Rule

UNKNOWN_COLUMNS, MISSING_COLUMNS = "unknown_columns", "missing_columns"


def judge_columns(
    contract: Contract, plan: HeaderPlan, rules: Sequence[Rule]
) -> tuple[list[Check], list[RejectionReason]]:
    """Compare a file's columns with the contract: the checks that fail, and why they reject the file."""
    checks: list[Check] = []
    reasons: list[RejectionReason] = []
    missing = [name for name in plan.filled if contract.columns[name].required]
    seen, known = list(plan.file_columns), list(contract.columns)
    for rule, names, policy, fault in (
        (MISSING_COLUMNS, missing, contract.missing_columns, "lacks {}, which the contract requires"),
        (UNKNOWN_COLUMNS, list(plan.unknown), contract.unknown_columns, "has {}, which the contract does not know"),
    ):
        if not names:
            continue
        rejects = policy == "freeze"
        severity = "critical" if rejects else "warning"
        checks.append(failed_check(rule, "columns", severity=severity, observed=seen, expected=known))
        if rejects:
            message = f"the file {fault.format(column_list(names))}"
            reasons.append(RejectionReason(code=rule, message=message, observed=seen, expected=known))
    for gx_rule in rules:
        absent = gx_rule.columns_missing(plan.file_columns, plan.columns)
        if not absent:
            continue
        check = unjudged_check(gx_rule)
        checks.append(check)
        if gx_rule.severity != "info":
            message = f"{gx_rule.id} cannot be judged: the file has no {column_list(absent)}"
            reasons.append(RejectionReason(code=gx_rule.id, message=message, observed=seen, expected=check.expected))
    return checks, reasons
