"""What the rules found, and in which words a rejection is told."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.checks import Check, RejectionReason
from flows.refinery.contract.model import BadRows
from flows.refinery.validate.expectations import Verdict
from flows.refinery.validate.header_plan import MISSING_COLUMN, UNKNOWN_COLUMN
from flows.refinery.validate.quarantine import RowRule
from flows.refinery.validate.rules import Rule

# Their observed value is an aggregate that shows no single value of the data, so it may stand in a message.
_MAY_BE_TOLD = (
    "row_count",
    "column_count",
    "mean",
    "stdev",
    "proportion",
    "unique_value_count",
    "divergence",
    "type",
    "columns_to_match",
)


def check_of(verdict: Verdict) -> Check:
    """The check of an expectation."""
    rule = verdict.rule
    return Check(
        rule=rule.id,
        expectation=rule.name,
        column=column_of(rule),
        kind=rule.level,
        severity=rule.severity,
        success=verdict.success,
        rows_evaluated=verdict.rows_evaluated,
        rows_failing=verdict.rows_failing,
        observed=observed_of(verdict),
        expected=expected_of(rule),
    )


def reason_of(verdict: Verdict) -> RejectionReason | None:
    """Why this verdict rejects the file; None where it does not."""
    rule = verdict.rule
    if verdict.success or not rejects(rule):
        return None
    return RejectionReason(
        code=rule.id, message=_sentence(verdict), observed=observed_of(verdict), expected=expected_of(rule)
    )


def row_rule_check(rule: RowRule, rows: int, broken: int) -> Check:
    """The check of a rule of type or presence that rows broke."""
    name = rule.id.split("(", 1)[0]
    kind = "columns" if name in (UNKNOWN_COLUMN, MISSING_COLUMN) else "coercion"
    column = rule.columns[0] if len(rule.columns) == 1 else None
    return Check(
        rule=rule.id,
        expectation=name,
        column=column,
        kind=kind,
        severity="warning",
        success=False,
        rows_evaluated=rows,
        rows_failing=broken,
    )


def reasons_of_bad_rows(limits: BadRows, bad: int, rows: int) -> list[RejectionReason]:
    """Why so many bad rows reject the file; empty where the contract allows them."""
    fraction = bad / rows if rows else 0.0
    said = f"{bad} of {rows} rows ({percent(fraction)}) are bad"
    reasons = []
    if bad and limits.policy == "reject_file":
        reasons.append(
            RejectionReason(code="bad_rows", message=f"{said}; the contract allows none", observed=bad, expected=0)
        )
    if limits.max_fraction is not None and fraction > limits.max_fraction:
        message = f"{said}; the contract allows at most {percent(limits.max_fraction)}"
        reasons.append(_too_many("max_fraction", message, round(fraction, 6), limits.max_fraction))
    if limits.max_count is not None and bad > limits.max_count:
        message = f"{said}; the contract allows at most {limits.max_count}"
        reasons.append(_too_many("max_count", message, bad, limits.max_count))
    return reasons


def _too_many(limit: str, message: str, observed: float, allowed: float) -> RejectionReason:
    return RejectionReason(code=f"bad_rows.{limit}", message=message, observed=observed, expected=allowed)


def rejects(rule: Rule) -> bool:
    """Whether the failure of this expectation rejects the file: not that of single rows, unless too many (`mostly`)."""
    if rule.severity == "info":
        return False
    return rule.severity == "critical" or rule.level == "table" or rule.mostly < 1


def column_of(rule: Rule) -> str | None:
    """The column of a rule, or its columns."""
    return ", ".join(rule.columns) or None


def expected_of(rule: Rule) -> dict[str, Any]:
    """The rule's arguments as the contract writes them, without the column."""
    named = ("column", "column_A", "column_B")
    return {name: plain(value) for name, value in rule.written.items() if name not in named}


def observed_of(verdict: Verdict) -> Any:
    """GX's observed value; of a row-level expectation the fraction of its rows that pass."""
    if verdict.rows_failing is not None:
        return round(1 - verdict.rows_failing / verdict.rows_evaluated, 6) if verdict.rows_evaluated else None
    observed = verdict.result.get("observed_value")
    if observed is None and "unexpected_count" in verdict.result:
        return {"unexpected_count": plain(verdict.result["unexpected_count"])}
    return plain(observed)


def percent(fraction: float) -> str:
    """A fraction in per cent, with enough digits that 1 row of 10,000 does not read as none."""
    return f"{fraction * 100:.4g} %"


def column_list(names: Sequence[str]) -> str:
    """Columns for a sentence."""
    shown = ", ".join(repr(name) for name in names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{'column' if len(names) == 1 else 'columns'} {shown}{more}"


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, pd.Timestamp | dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _sentence(verdict: Verdict) -> str:
    rule = verdict.rule
    if verdict.rows_failing is not None and verdict.rows_evaluated:
        passing = percent(1 - verdict.rows_failing / verdict.rows_evaluated)
        said = f"{rule.id}: {verdict.rows_failing} of {verdict.rows_evaluated} rows fail, so {passing} pass"
        if rule.mostly < 1:
            return f"{said}; at least {percent(rule.mostly)} must pass (mostly)"
        return f"{said}; its severity is critical, so none may fail"
    expected = ", ".join(f"{name} {value}" for name, value in expected_of(rule).items() if value is not None)
    observed = observed_of(verdict)
    if observed is None or not any(part in rule.name for part in _MAY_BE_TOLD):
        return f"{rule.id} is not met; expected {expected}" if expected else f"{rule.id} is not met"
    return f"{rule.id}: observed {observed}, expected {expected}"
