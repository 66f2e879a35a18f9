"""Convert the results of rules into the checks and rejection reasons that the receipt shows."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from flows.refinery.checks import Check, RejectionReason
from flows.refinery.contract.model import BadRows, Contract
from flows.refinery.read.partition import SourceFormat
from flows.refinery.read.path_columns import Folders
from flows.refinery.read.rejections import LayoutUnfit, TextUndecodable
from flows.refinery.validate.expectations import Verdict
from flows.refinery.validate.header_plan import MISSING_COLUMN, UNKNOWN_COLUMN, HeaderPlan
from flows.refinery.validate.near_misses import near_misses
from flows.refinery.validate.quarantine import RowRule
from flows.refinery.validate.rules import Rule

_MAX_SHEETS = 20  # the maximum number of sheets that a check names
_NAMED_RULES = 3  # the maximum number of rules that a message names
# Parts of the names of expectations whose observed value is an aggregate. A message may show it, because it reveals no
# single value in the data.
_MAY_BE_SHOWN = (
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
    return unjudged_check(verdict.rule).model_copy(
        update={
            "success": verdict.success,
            "rows_evaluated": verdict.rows_evaluated,
            "rows_failing": verdict.rows_failing,
            "observed": observed_of(verdict),
        }
    )


def unjudged_check(rule: Rule) -> Check:
    """Return the failed Check of an expectation that could not be checked, because the file lacks a column."""
    columns = ", ".join(rule.columns) or None
    return failed_check(
        rule.id, rule.level, rule.name, column=columns, severity=rule.severity, expected=expected_of(rule)
    )


def sheet_checks(found: SourceFormat) -> list[Check]:
    """Return a check that names the sheet that was read and other sheets of the workbook. It also reports two things
    that a spreadsheet shows but the cells' values lack: merged ranges, and number formats with leading zeros. Return []
    if the file is not a workbook."""
    if found.sheet is None:
        return []
    observed: dict[str, Any] = {"sheet": found.sheet, "other_sheets": list(found.other_sheets[:_MAX_SHEETS])}
    if found.merged_ranges:
        observed["merged_ranges"] = found.merged_ranges
    if found.padding_formats:
        observed["padding_formats"] = list(found.padding_formats)
    check = failed_check("sheet", "decode", severity="info", observed=observed)
    return [check.model_copy(update={"success": True})]


def folder_checks(folders: Folders, contract: Contract) -> list[Check]:
    """Return a check that names the folders in the object key, such as `dt=2024-01-01/`, that the contract does not
    declare as path columns. Return [] if there are none."""
    names = [name for name, _ in folders if name not in contract.path_columns]
    if not names:
        return []
    line = f"path_columns: [{', '.join(names)}]"
    return [failed_check("path_columns", "columns", severity="info", observed=names, expected=line)]


def row_rule_check(rule: RowRule, rows: int, broken: int, hint: str | None = None) -> Check:
    """Return the Check for a rule on columns, types or missing values that some rows broke.

    Args:
        rows: the number of rows that could be decoded.
        broken: the number of rows that broke the rule.
        hint: a suggestion for the contract.
    """
    name = rule.id.split("(", 1)[0]
    kind = "columns" if name in (UNKNOWN_COLUMN, MISSING_COLUMN) else "coercion"
    column = rule.columns[0] if len(rule.columns) == 1 else None
    return failed_check(rule.id, kind, name, column=column, rows_evaluated=rows, rows_failing=broken, expected=hint)


def failed_check(rule: str, kind: str, expectation: str | None = None, **found: Any) -> Check:
    """Return a Check for a rule that the file broke. Its severity is warning unless `found` has a severity."""
    given = {"column": None, "severity": "warning", **found}
    return Check(rule=rule, expectation=expectation or rule, kind=kind, success=False, **given)


def judge_columns(
    contract: Contract, plan: HeaderPlan, rules: Sequence[Rule]
) -> tuple[list[Check], list[RejectionReason]]:
    """Compare a file's columns with the contract. Return the failed checks, and the reasons to reject the file."""
    checks: list[Check] = []
    reasons: list[RejectionReason] = []
    missing = [name for name in plan.filled if contract.columns[name].required]
    known = list(contract.columns)
    hint = near_misses(missing, [name for name in plan.file_columns if name not in contract.columns])
    # If the contract has none of the names, the header may in fact be a row, whose values must not be shown.
    is_header = bool(hint) or not known or not set(known).isdisjoint(plan.file_columns)
    seen = list(plan.file_columns) if is_header else f"{len(plan.file_columns)} columns, all unknown"
    for rule, names, policy, fault in (
        ("missing_columns", missing, contract.missing_columns, "lacks {}, which the contract requires"),
        ("unknown_columns", [*plan.unknown], contract.unknown_columns, "has {}, which the contract does not declare"),
    ):
        if not names:
            continue
        severity = "critical" if policy == "freeze" else "warning"
        checks.append(failed_check(rule, "columns", severity=severity, observed=seen, expected=known))
        if policy == "freeze":
            named = column_list(names) if is_header or names is missing else f"{len(names)} columns"
            message = f"the file {fault.format(named)}{hint if names is missing else ''}"
            reasons.append(RejectionReason(code=rule, message=message, observed=seen, expected=known))
    for gx_rule in rules:
        absent = gx_rule.columns_missing(plan.file_columns, plan.columns)
        if not absent:
            continue
        check = unjudged_check(gx_rule)
        checks.append(check)
        if gx_rule.severity != "info":
            message = f"{gx_rule.id} cannot be checked: the file has no {column_list(absent)}"
            reasons.append(RejectionReason(code=gx_rule.id, message=message, observed=seen, expected=check.expected))
    return checks, reasons


def reason_of(verdict: Verdict) -> RejectionReason | None:
    """Return the reason why a verdict rejects the file, or None if it does not."""
    rule = verdict.rule
    if verdict.success or not rejects(rule):
        return None
    return RejectionReason(
        code=rule.id, message=_sentence(verdict), observed=observed_of(verdict), expected=expected_of(rule)
    )


def reasons_of_bad_rows(
    limits: BadRows, quarantined: Mapping[str, int], rows: int, hints: Sequence[str] = ()
) -> list[RejectionReason]:
    """Return the reasons to reject a file because of its bad rows, or [] if the contract allows that many and at least
    one row is good.

    Args:
        quarantined: the number of bad rows by rule.
        rows: the number of rows in the file.
        hints: suggestions for the contract, which the messages show.
    """
    bad = sum(quarantined.values())
    fraction = bad / rows if rows else 0.0
    hint = "".join(f"; {hint}" for hint in hints)
    reasons = []

    def add(code: str, allowed: str, observed: float, expected: float) -> None:
        message = f"{bad} of {rows} rows ({percent(fraction)}) are bad; the contract allows {allowed}{hint}"
        reasons.append(RejectionReason(code=code, message=message, observed=observed, expected=expected))

    if bad and limits.policy == "reject_file":
        add("bad_rows", "none", bad, 0)
    if limits.max_fraction is not None and fraction > limits.max_fraction:
        add("bad_rows.max_fraction", f"at most {percent(limits.max_fraction)}", round(fraction, 6), limits.max_fraction)
    if limits.max_count is not None and bad > limits.max_count:
        add("bad_rows.max_count", f"at most {limits.max_count}", bad, limits.max_count)
    if bad and bad == rows and not reasons:
        named = ", ".join(sorted(quarantined, key=lambda rule: -quarantined[rule])[:_NAMED_RULES])
        message = f"no row is good: {bad} of {rows} break a rule ({named}); compare the file with the contract{hint}"
        reasons.append(RejectionReason(code="no_good_row", message=message, observed=0, expected=1))
    return reasons


def first_cause(
    reasons: Sequence[RejectionReason], found: SourceFormat, misfits: Mapping[str, int], rows: int
) -> list[RejectionReason]:
    """Return the reason from which the other reasons for a rejection follow (the file's layout or its encoding), or []
    if there is none."""
    lacks_columns = any(reason.code == "missing_columns" for reason in reasons)
    if found.layout_fault and (lacks_columns or 2 * sum(misfits.values()) > rows):
        message = f"{found.layout_fault} in the contract"
        return [RejectionReason(code=LayoutUnfit.code, message=message, part="read")]
    undecodable = misfits.get("undecodable_text", 0)
    if 2 * undecodable > rows:
        message = f"{undecodable} of {rows} rows are not {found.encoding}; write the right `encoding` under `format`"
        return [RejectionReason(code=TextUndecodable.code, message=f"{message} in the contract", part="read")]
    return []


def rejects(rule: Rule) -> bool:
    """Return whether the failure of an expectation rejects the file. With severity info, it never does. The failure of
    an expectation on rows does so only with severity critical or with `mostly`."""
    if rule.severity == "info":
        return False
    return rule.severity == "critical" or rule.level == "table" or rule.mostly < 1


def expected_of(rule: Rule) -> dict[str, Any]:
    """Return the rule's arguments in the contract, without column, column_A and column_B."""
    named = ("column", "column_A", "column_B")
    return {name: json_value(value) for name, value in rule.written.items() if name not in named}


def observed_of(verdict: Verdict) -> Any:
    """Return the fraction of rows that pass an expectation on rows. For other expectations, return the value that GX
    observed, or else GX's count of unexpected values."""
    if verdict.rows_failing is not None:
        return round(1 - verdict.rows_failing / verdict.rows_evaluated, 6) if verdict.rows_evaluated else None
    observed = verdict.result.get("observed_value")
    if observed is None and "unexpected_count" in verdict.result:
        return {"unexpected_count": json_value(verdict.result["unexpected_count"])}
    return json_value(observed)


def percent(fraction: float) -> str:
    """Format a fraction as a percentage with at most four significant digits, so that 1 row of 10,000 is not shown as
    0%."""
    return f"{fraction * 100:.4g}%"


def column_list(names: Sequence[str]) -> str:
    """Format column names for a message, such as "columns 'a', 'b'". At most ten are named."""
    shown = ", ".join(repr(name) for name in names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{'column' if len(names) == 1 else 'columns'} {shown}{more}"


def json_value(value: Any) -> Any:
    """Convert a value, and the values inside it, to types that JSON has. NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [json_value(part) for part in value]
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
        found = f"{rule.id}: {verdict.rows_failing} of {verdict.rows_evaluated} rows fail, so {passing} pass"
        if rule.mostly < 1:
            return f"{found}; at least {percent(rule.mostly)} must pass (mostly)"
        return f"{found}; its severity is critical, so none may fail"
    expected = ", ".join(f"{name} {value}" for name, value in expected_of(rule).items() if value is not None)
    observed = observed_of(verdict)
    if observed is None or not any(part in rule.name for part in _MAY_BE_SHOWN):
        return f"{rule.id} is not met; expected {expected}" if expected else f"{rule.id} is not met"
    return f"{rule.id}: observed {observed}, expected {expected}"
