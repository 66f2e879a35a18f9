"""A contract's preprocessing steps, checked and ready to be applied."""

from __future__ import annotations

from collections import Counter
from types import ModuleType

from pydantic import ValidationError

from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.contract.model import Contract
from flows.refinery.contract.model import Step as WrittenStep
from flows.refinery.preparing.model_steps import MinMaxScale, OneHotEncode, OrdinalEncode, Standardize, TrainTestSplit
from flows.refinery.preparing.own_steps import OwnStep, load_own_steps
from flows.refinery.preparing.step_base import FittedStep, Step, StepFailed
from flows.refinery.preparing.table_steps import (
    CleanColumnNames,
    DropColumns,
    DropDuplicates,
    DropMissing,
    Rename,
    Select,
    StripWhitespace,
)
from flows.refinery.preparing.value_steps import Cast, Clip, FillMissing, MapValues, ParseDates

__all__ = ["BUILT_IN", "DropDuplicates", "FittedStep", "OwnStep", "Step", "StepFailed", "check_steps", "compile_steps"]

BUILT_IN: dict[str, type[Step]] = {
    step.name: step
    for step in (
        CleanColumnNames,
        StripWhitespace,
        Rename,
        Select,
        DropColumns,
        DropDuplicates,
        FillMissing,
        DropMissing,
        Clip,
        MapValues,
        ParseDates,
        Cast,
        Standardize,
        MinMaxScale,
        OneHotEncode,
        OrdinalEncode,
        TrainTestSplit,
    )
}


def compile_steps(contract: Contract) -> list[Step | OwnStep]:
    """The contract's steps, ready to be applied. They hold what they learn: compile them anew for each file.

    Raises:
        ContractInvalid: a step's arguments are wrong.
        StepFailed: the dataset's steps.py cannot be imported.
    """
    seen: Counter[str] = Counter()
    steps: list[Step | OwnStep] = []
    module: ModuleType | None = None
    for written in contract.preprocess:
        seen[written.name] += 1
        label = written.name if seen[written.name] == 1 else f"{written.name}#{seen[written.name]}"
        if not written.is_own:
            steps.append(_built_in(contract, written, label))
            continue
        if contract.steps_path is None:
            raise ContractInvalid(f"contract {contract.dataset!r}: step {label}: there is no steps.py beside it")
        module = module or load_own_steps(contract.steps_path)
        function = getattr(module, written.function, None)
        if not callable(function):
            raise ContractInvalid(f"contract {contract.dataset!r}: steps.py has no function {written.function!r}")
        steps.append(OwnStep(label, function, written.arguments))
    return steps


def check_steps(contract: Contract) -> None:
    """Refuse wrong arguments of built-in steps.

    Raises:
        ContractInvalid: with step, argument and fault.
    """
    for position, written in enumerate(contract.preprocess, start=1):
        if not written.is_own:
            _built_in(contract, written, f"{written.name} (step {position})")


def _built_in(contract: Contract, written: WrittenStep, label: str) -> Step:
    try:
        step = BUILT_IN[written.name].model_validate(written.arguments)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False)
        )
        raise ContractInvalid(f"contract {contract.dataset!r}: step {label}: {faults}") from None
    step.label = label
    return step
