"""Validate one partition, in this process or in another one."""

import numpy as np
import pandas as pd

from flows.refinery.contract.model import Column
from flows.refinery.read.partition import Partition
from flows.refinery.validate.coercion import MISSING_RULE, TYPE_RULES, coerce, empty_column
from flows.refinery.validate.expectations import RuleFinding
from flows.refinery.validate.header_plan import MISSING_COLUMN, UNKNOWN_COLUMN, HeaderPlan


def validate(partition: Partition, plan: HeaderPlan) -> tuple[pd.DataFrame, np.ndarray, tuple[RuleFinding, ...]]:
    """Convert one partition to the contract's types, and check it with all rules.

    Returns:
        all of its rows in the contract's types, as GX checked them;
        masks (row rules x rows), true where a row breaks the rule;
        the finding of each expectation.

    Raises:
        ExpectationRaised: GX gives no verdict on the values.
    """
    rows = len(partition.frame)
    masks = np.zeros((len(plan.row_rules), rows), dtype=bool)
    columns: dict[str, pd.Series] = {}
    for name, column in plan.columns.items():
        if name in partition.frame.columns:
            columns[name] = _coerced(partition, name, column, plan, masks)
        else:
            columns[name] = empty_column(column.type, rows)
            plan.flag(masks, f"{MISSING_COLUMN}({name})", slice(None))
            # In JSON, other rows of the file may have the column; then only a value is missing here.
            plan.flag(masks, f"{MISSING_RULE}({name})", slice(None))
    for name in plan.unknown:
        if name in partition.frame.columns:
            plan.flag(masks, UNKNOWN_COLUMN, partition.frame[name].notna().to_numpy())
    frame = pd.DataFrame(columns, index=pd.RangeIndex(rows), copy=False)
    findings = plan.judge.judge(frame, partition.row_numbers) if plan.judge else ()
    for rule, finding in zip(plan.judged, findings, strict=True):
        if finding.failing is not None:
            plan.flag(masks, rule.id, finding.failing)
    return frame, masks, findings


def _coerced(partition: Partition, name: str, column: Column, plan: HeaderPlan, masks: np.ndarray) -> pd.Series:
    coerced = coerce(partition.frame[name], column, partition.source_format, plan.unreadable[name])
    plan.flag(masks, f"{TYPE_RULES[column.type]}({name})", coerced.unreadable)
    if not column.nullable:
        plan.flag(masks, f"{MISSING_RULE}({name})", coerced.missing)
    return coerced.values
