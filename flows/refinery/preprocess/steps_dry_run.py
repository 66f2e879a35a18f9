"""Try a contract's steps and its `output` section on an empty table, to find mistakes that would make every file
fail."""

from collections.abc import Iterator

import pandas as pd

from flows.refinery.contract.loading import Fault
from flows.refinery.contract.model import Contract
from flows.refinery.preprocess.argument_types import format_fault
from flows.refinery.preprocess.model_steps import OneHotEncode
from flows.refinery.preprocess.step_base import (
    ColumnMissing,
    FittedStep,
    NoColumnLeft,
    OnColumns,
    Step,
    StepFailed,
    require_a_column,
)
from flows.refinery.preprocess.steps import BUILT_IN, argument_faults
from flows.refinery.validate.typed_rows import ROW_NUMBER, as_stepped, no_rows
from flows.refinery.write.outputs import OutputImpossible, require_columns_of


def step_faults(contract: Contract) -> Iterator[Fault]:
    """Yield the errors in a contract's built-in steps, column names and formats, and partition_by, each with its
    position in the contract. Custom functions are not called. Steps after a custom function are not run, but their
    arguments are checked."""
    sound = True
    for position, written in enumerate(contract.preprocess):
        if written.is_own:
            continue
        for fault in argument_faults(written):
            sound = False
            yield ("preprocess", position), f"{written.name}: {fault}"
    if ROW_NUMBER in contract.columns:
        yield ("columns", ROW_NUMBER), f"Sluice stores row numbers as {ROW_NUMBER}; give the column another name"
    elif sound and contract.columns:
        for name, column in contract.columns.items():
            fault = format_fault(column) if column.format else ""
            if fault:
                yield ("columns", name), f"{name}: {fault}"
        yield from _tried(contract)


def _tried(contract: Contract) -> Iterator[Fault]:
    """Apply the steps and then partition_by to a frame without rows, and yield the errors of the first that fails."""
    may_have_more = contract.unknown_columns == "evolve"
    types = {name: column.type for name, column in contract.columns.items()}
    nullable = [name for name, column in contract.columns.items() if column.nullable]
    frame = as_stepped(no_rows(types), types, nullable)
    kinds: dict[str, str] = {name: kind for name, kind in types.items() if kind in ("date", "time")}
    for position, written in enumerate(contract.preprocess):
        if written.is_own:
            return
        step = BUILT_IN[written.name].model_validate({**written.arguments, "label": written.name})
        is_open = isinstance(step, OneHotEncode) and not step.is_fitted  # its columns depend on the data
        misfits = _misfits(step, frame)
        if misfits:
            yield from ((("preprocess", position), f"step {step.label}: {fault}") for fault in misfits)
            return
        try:
            kinds, frame = step.kinds_after(kinds, list(frame.columns)), _done(step, frame)
            kinds = {name: kind for name, kind in kinds.items() if name in frame.columns}
        except StepFailed as error:
            if not (may_have_more and isinstance(error, ColumnMissing | NoColumnLeft)):
                yield ("preprocess", position), str(error)
            return
        except Exception as error:  # noqa: BLE001 an unforeseen error must not end the check of other contracts
            cause = f"{type(error).__name__}: {error}"
            yield ("preprocess", position), f"step {step.label} cannot be applied with these arguments: {cause}"
            return
        if is_open:
            return
    if may_have_more:
        return
    try:
        require_columns_of(contract.output.partition_by, frame)
    except OutputImpossible as error:
        yield ("output", "partition_by"), str(error)


def _misfits(step: Step, frame: pd.DataFrame) -> list[str]:
    if not isinstance(step, OnColumns):
        return []
    there = [name for name in step.targets if name in frame.columns]
    return [fault for name in there for fault in step.misfits(name, frame[name])]


def _done(step: Step, frame: pd.DataFrame) -> pd.DataFrame:
    if isinstance(step, FittedStep) and not step.is_fitted:
        step.learn(frame)
        step.finish()
    result = step.apply(frame)
    require_a_column(step.label, frame, result)
    return result
