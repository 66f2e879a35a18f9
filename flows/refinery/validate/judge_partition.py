"""Validate one partition of a file, in the main process or in a worker process."""

import numpy as np
import pyarrow as pa

from flows.refinery.contract.model import Column
from flows.refinery.read.partition import Partition
from flows.refinery.validate.coercion import ARROW_TYPES, MISSING_RULE, TYPE_RULES, coerce
from flows.refinery.validate.expectations import RuleFinding
from flows.refinery.validate.header_plan import MISSING_COLUMN, UNKNOWN_COLUMN, HeaderPlan
from flows.refinery.validate.typed_rows import as_judged, to_batch


def validate(partition: Partition, plan: HeaderPlan) -> tuple[pa.RecordBatch, np.ndarray, tuple[RuleFinding, ...]]:
    """Convert one partition to the contract's types, and check it with all rules.

    Returns:
        all rows in the contract's types, with their row numbers;
        the masks, an array of shape (row rules, rows) that is true where a row breaks a rule;
        what each expectation found.

    Raises:
        ExpectationRaised: GX raised an error instead of giving a verdict on the values.
    """
    rows = len(partition.frame)
    masks = np.zeros((len(plan.row_rules), rows), dtype=bool)
    arrays: list[pa.Array] = []
    for name, column in plan.columns.items():
        if name in partition.frame.columns:
            arrays.append(_coerced(partition, name, column, plan, masks))
        else:
            arrays.append(pa.nulls(rows, ARROW_TYPES[column.type]))
            plan.flag(masks, f"{MISSING_COLUMN}({name})", slice(None))
            # In JSON, other partitions may have the column. Then only its values are missing in this one.
            plan.flag(masks, f"{MISSING_RULE}({name})", slice(None))
    for name in plan.unknown:
        if name in partition.frame.columns:
            plan.flag(masks, UNKNOWN_COLUMN, partition.frame[name].notna().to_numpy())
    typed = to_batch(arrays, partition.row_numbers, plan.kinds)
    findings = plan.judge.judge(as_judged(typed, plan.judged_kinds), partition.row_numbers) if plan.judge else ()
    for rule, finding in zip(plan.judged, findings, strict=True):
        if finding.failing is not None:
            plan.flag(masks, rule.id, finding.failing)
    return typed, masks, findings


def _coerced(partition: Partition, name: str, column: Column, plan: HeaderPlan, masks: np.ndarray) -> pa.Array:
    coerced = coerce(partition.frame[name], column, partition.source_format, plan.unreadable[name])
    plan.flag(masks, f"{TYPE_RULES[column.type]}({name})", coerced.unreadable)
    if not column.nullable:
        plan.flag(masks, f"{MISSING_RULE}({name})", coerced.missing)
    return coerced.array
