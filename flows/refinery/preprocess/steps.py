"""Create the steps in a contract's `preprocess` section, and check their arguments."""

from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.contract.model import Contract, WrittenStep
from flows.refinery.contract.yaml_with_lines import not_text
from flows.refinery.preprocess import model_steps, table_steps, value_steps
from flows.refinery.preprocess.own_steps import OwnStep, load_own_steps
from flows.refinery.preprocess.step_base import Step
from flows.refinery.suggestions import did_you_mean

BUILT_IN: dict[str, type[Step]] = {
    step.name: step
    for module in (table_steps, value_steps, model_steps)
    for step in vars(module).values()
    if isinstance(step, type) and issubclass(step, Step) and "name" in vars(step)  # base classes have no name
}


def compile_steps(contract: Contract) -> list[Step | OwnStep]:
    """Create a contract's steps. Call this for each file, because steps keep the parameters that they learn from a
    file.

    Raises:
        ContractInvalid: an argument of a step is wrong, or steps.py or a function in it does not exist.
        StepsNotImportable: steps.py cannot be imported.
    """
    seen: Counter[str] = Counter()
    steps: list[Step | OwnStep] = []
    module: ModuleType | None = None
    for written in contract.preprocess:
        seen[written.name] += 1
        label = written.name if seen[written.name] == 1 else f"{written.name}#{seen[written.name]}"
        if not written.is_own:
            faults = argument_faults(written)
            if faults:
                raise ContractInvalid(f"contract {contract.dataset!r}: step {label}: {'; '.join(faults)}")
            steps.append(BUILT_IN[written.name].model_validate({**written.arguments, "label": label}))
            continue
        if contract.steps_path is None:
            raise ContractInvalid(f"contract {contract.dataset!r}: step {label}: the contract has no steps.py")
        module = module or load_own_steps(contract.steps_path)
        function = getattr(module, written.function, None)
        if not callable(function):
            raise ContractInvalid(f"contract {contract.dataset!r}: steps.py has no function {written.function!r}")
        steps.append(OwnStep(label, function, written.arguments))
    return steps


def argument_faults(written: WrittenStep) -> list[str]:
    """Return an error message for each wrong argument of a built-in step."""
    step = BUILT_IN[written.name]
    try:
        step.model_validate(written.arguments)
    except ValidationError as error:
        known = sorted(set(step.model_fields) - {"label"})
        return [_sentence(fault, known) for fault in error.errors(include_url=False)]
    return []


def _sentence(fault: Any, known: Sequence[str]) -> str:
    argument = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        return f"it has no argument {argument!r}{did_you_mean(argument, known)} ({takes})"
    if fault["loc"][-1:] == ("[key]",):
        return f"{fault['loc'][0]}: {not_text(fault.get('input'))}"
    if fault["type"] == "missing":
        return f"it needs the argument {argument!r}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message
    return f"{argument}: {message}; found {fault.get('input')!r}"
