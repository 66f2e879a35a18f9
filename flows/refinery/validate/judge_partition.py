"""Convert one partition of a file to the contract's types, and validate it. Both can be done in any thread or
process."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flows.refinery.contract.model import Column
from flows.refinery.read.partition import Partition
from flows.refinery.validate.coercion import ARROW_TYPES, MISSING_RULE, TYPE_RULES, coerce
from flows.refinery.validate.expectations import RuleFinding
from flows.refinery.validate.header_plan import MISSING_COLUMN, UNKNOWN_COLUMN, HeaderPlan
from flows.refinery.validate.typed_rows import as_judged, to_batch


@dataclass(frozen=True)
class TypedPartition:
    """A partition and its values in the contract's types. It can be pickled."""

    read: Partition  # as it was read
    rows: pa.RecordBatch  # all rows in the contract's types, with their row numbers
    masks: np.ndarray  # an array of shape (row rules, rows); true where a row breaks a rule that is not an expectation


def typed_partition(partition: Partition, plan: HeaderPlan) -> TypedPartition:
    """Convert one partition to the contract's types."""
    rows = len(partition.frame)
    masks = np.zeros((len(plan.row_rules), rows), dtype=bool)
    arrays: list[pa.Array] = []
    for name, column in plan.columns.items():
        if name in partition.frame.columns:
            arrays.append(_coerced(partition, name, column, plan, masks))
        else:
            arrays.append(pa.nulls(rows, ARROW_TYPES[column.type]))
            plan.flag(masks, f"{MISSING_COLUMN}({name})", slice(None))
            # In JSON, other partitions may have the column. Then only its values are missing in this partition.
            plan.flag(masks, f"{MISSING_RULE}({name})", slice(None))
    for name in plan.unknown:
        if name in partition.frame.columns:
            plan.flag(masks, UNKNOWN_COLUMN, partition.frame[name].notna().to_numpy())
    return TypedPartition(partition, to_batch(arrays, partition.row_numbers, plan.kinds), masks)


def validate(partition: TypedPartition, plan: HeaderPlan) -> tuple[np.ndarray, tuple[RuleFinding, ...]]:
    """Check one partition with the contract's expectations.

    Returns:
        the masks, an array of shape (row rules, rows) that is true where a row breaks a rule;
        the result of each expectation.

    Raises:
        FileRejected: an expectation cannot be checked on these rows.
    """
    masks = partition.masks.copy()
    frame = as_judged(partition.rows, plan.judged_kinds)
    findings = plan.judge.judge(frame, partition.read.row_numbers) if plan.judge else ()
    for rule, finding in zip(plan.judged, findings, strict=True):
        if finding.failing is not None:
            plan.flag(masks, rule.id, finding.failing)
    return masks, findings


def _coerced(partition: Partition, name: str, column: Column, plan: HeaderPlan, masks: np.ndarray) -> pa.Array:
    coerced = coerce(partition.frame[name], column, partition.source_format, plan.unreadable[name])
    plan.flag(masks, f"{TYPE_RULES[column.type]}({name})", coerced.unreadable)
    if not column.nullable:
        plan.flag(masks, f"{MISSING_RULE}({name})", coerced.missing)
    return coerced.array
