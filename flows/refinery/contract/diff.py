"""Compare two contracts, and describe the effect of each difference on the files that arrive later."""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args

from pydantic import BaseModel

from flows.refinery.contract.model import KEEP, Column, Contract, Expectation, Severity, WrittenStep

_POLICIES = ("evolve", "quarantine", "freeze")  # from the least strict to the strictest
_SEVERITIES = get_args(Severity)  # from the least severe to the most severe


class Effect(StrEnum):
    """The effect of a contract change on the files that arrive after it."""

    STRICTER = "stricter"
    LOOSER = "looser"
    READS = "reads differently"
    OUTPUT = "different output"
    MONITORING = "monitoring"
    NONE = "no effect"


@dataclass(frozen=True)
class ContractChange:
    """One difference between two contracts: its effect, and a sentence that describes it."""

    effect: Effect
    message: str


def changes_between(before: Contract, after: Contract) -> list[ContractChange]:
    """Return every difference between two contracts, starting with stricter rules."""
    found = [
        *_source(before, after),
        *_columns(before, after),
        *_expectations(before.expectations, after.expectations),
        *_bad_rows(before, after),
        *_steps(before, after),
        *_output(before, after),
        *_differing("", Effect.MONITORING, before, after, {"expected_every_hours", "max_concurrent_uploads"}),
        *_descriptions(before, after),
    ]
    return sorted(found, key=lambda change: list(Effect).index(change.effect))


# --- the files, and how they are read ---------------------------------------------------------------------------------


def _source(before: Contract, after: Contract) -> Iterator[ContractChange]:
    if before.dataset != after.dataset:
        yield ContractChange(Effect.OUTPUT, f"the dataset is {after.dataset!r} instead of {before.dataset!r}")
    if before.sources != after.sources and before.dataset == after.dataset:
        yield ContractChange(Effect.READS, f"files come from {_list(after.sources)} instead of {_list(before.sources)}")
    yield from _differing("", Effect.READS, before, after, {"path_columns"})
    yield from _differing("format: ", Effect.READS, before.format, after.format)


def _differing(
    where: str, effect: Effect, before: BaseModel, after: BaseModel, fields: set[str] | None = None
) -> Iterator[ContractChange]:
    """Yield one change for each field that differs."""
    old, new = (model.model_dump(include=fields) for model in (before, after))
    for name in old:
        if old[name] != new[name]:
            yield ContractChange(effect, f"{where}{name} is {new[name]!r} instead of {old[name]!r}")


# --- columns ----------------------------------------------------------------------------------------------------------


def _columns(before: Contract, after: Contract) -> Iterator[ContractChange]:
    for name, column in before.columns.items():
        if name not in after.columns:
            yield _removed_column(name, column, after)
    for name, column in after.columns.items():
        if name in before.columns:
            yield from _column(name, before.columns[name], column)
            yield from _required(name, before, after)
        elif column.required and after.missing_columns != "evolve":
            yield ContractChange(Effect.STRICTER, f"column {name!r} is required, as {column.type}")
        else:
            yield ContractChange(Effect.READS, f"column {name!r} is read as {column.type}")
    for field in ("unknown_columns", "missing_columns"):
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            stricter = _POLICIES.index(new) > _POLICIES.index(old)
            yield ContractChange(_stricter_if(stricter), f"{field}: {new} instead of {old}")


def _removed_column(name: str, column: Column, after: Contract) -> ContractChange:
    if after.unknown_columns == "evolve":
        return ContractChange(Effect.LOOSER, f"column {name!r} ({column.type}) is no longer required")
    fate = "files with it are rejected" if after.unknown_columns == "freeze" else "rows with a value are quarantined"
    return ContractChange(Effect.STRICTER, f"column {name!r} ({column.type}) is unknown now: {fate}")


_ANY_TYPE_BUT_STRING = ("integer", "number", "json", "boolean", "timestamp", "date", "time")
_WIDER = {("integer", "number"), ("date", "timestamp"), *((each, "string") for each in _ANY_TYPE_BUT_STRING)}


def _column(name: str, before: Column, after: Column) -> Iterator[ContractChange]:
    if before.type != after.type:
        pair, where = (before.type, after.type), f"column {name!r} is {after.type} instead of {before.type}"
        if pair in _WIDER:
            yield ContractChange(Effect.LOOSER, f"{where}: every value that was valid still is")
        else:
            yield ContractChange(Effect.STRICTER, f"{where}: values that cannot be read as this type are quarantined")
        yield ContractChange(Effect.OUTPUT, f"column {name!r} is published as {after.type} instead of {before.type}")
    if before.nullable != after.nullable:
        may = "may" if after.nullable else "must not"
        yield ContractChange(_stricter_if(not after.nullable), f"column {name!r} {may} have missing values")
    options = {"format", "timezone", "missing_values"}
    yield from _differing(f"column {name!r}: ", Effect.READS, before, after, options)


def _required(name: str, before: Contract, after: Contract) -> Iterator[ContractChange]:
    is_now = after.columns[name].required
    if before.columns[name].required == is_now:
        return
    if after.missing_columns == "evolve":
        reported = "is reported" if is_now else "is no longer reported"
        yield ContractChange(Effect.MONITORING, f"column {name!r}: a file without it {reported}")
    else:
        required = "is required" if is_now else "is no longer required"
        yield ContractChange(_stricter_if(is_now), f"column {name!r} {required}")


# --- expectations -----------------------------------------------------------------------------------------------------


def _expectations(before: Sequence[Expectation], after: Sequence[Expectation]) -> Iterator[ContractChange]:
    old, new = _by_subject(before), _by_subject(after)
    for subject, expectation in old.items():
        if subject not in new:
            yield ContractChange(_weight(expectation, Effect.LOOSER), f"{subject} is removed")
    for subject, expectation in new.items():
        if subject in old:
            yield from _expectation(subject, old[subject], expectation)
        else:
            yield ContractChange(_weight(expectation, Effect.STRICTER), f"{subject} is added{_arguments(expectation)}")


def _by_subject(expectations: Sequence[Expectation]) -> dict[str, Expectation]:
    """Return the expectations keyed by name and columns. If several share both, their keys end in #2, #3 and so on."""
    seen: Counter[str] = Counter()
    result = {}
    for expectation in expectations:
        subject = f"{expectation.name}({', '.join(expectation.columns)})"
        seen[subject] += 1
        result[subject if seen[subject] == 1 else f"{subject}#{seen[subject]}"] = expectation
    return result


def _weight(expectation: Expectation, effect: Effect) -> Effect:
    """Return `effect`, or NONE if the severity is info, because such an expectation quarantines and rejects nothing."""
    return Effect.NONE if expectation.severity == "info" else effect


def _expectation(subject: str, before: Expectation, after: Expectation) -> Iterator[ContractChange]:
    if before.severity != after.severity:
        effect = _stricter_if(_SEVERITIES.index(after.severity) > _SEVERITIES.index(before.severity))
        yield ContractChange(effect, f"{subject}: its severity is {after.severity} instead of {before.severity}")
    for name in dict.fromkeys([*before.arguments, *after.arguments]):
        old, new = before.arguments.get(name), after.arguments.get(name)
        if old != new:
            effect = _weight(after, _effect_of_argument(after.name, name, old, new))
            yield ContractChange(effect, f"{subject}: {_argument_words(name, old, new)}")


def _effect_of_argument(expectation: str, name: str, old: Any, new: Any) -> Effect:
    if name in ("min_value", "max_value", "mostly"):
        return _by_size(old, new, larger_is_stricter=name != "max_value", absent=1.0 if name == "mostly" else None)
    if name == "value_set" and isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return _by_set(expectation, set(map(str, old)), set(map(str, new)))
    if name == KEEP:
        return _stricter_if(new in (None, "none"))
    if name in ("strict_min", "strict_max"):
        return _stricter_if(bool(new))
    if name in ("row_condition", "ignore_row_if") and (old is None or new is None):
        return _stricter_if(new is None)
    return Effect.STRICTER  # it is not known whether a changed regex or type is looser, so a person should check


def _by_size(old: Any, new: Any, *, larger_is_stricter: bool, absent: float | None = None) -> Effect:
    old, new = (absent if value is None else value for value in (old, new))
    if old is None or new is None:
        return _stricter_if(old is None)
    try:
        return _stricter_if((new > old) == larger_is_stricter)
    except TypeError:
        return Effect.STRICTER


def _by_set(expectation: str, old: set[str], new: set[str]) -> Effect:
    if old == new:
        return Effect.NONE
    if "equal_set" in expectation or not (old < new or new < old):
        return Effect.STRICTER
    more_is_stricter = "not_be_in_set" in expectation or "contain_set" in expectation
    return _stricter_if((old < new) == more_is_stricter)


def _stricter_if(is_stricter: bool) -> Effect:
    return Effect.STRICTER if is_stricter else Effect.LOOSER


def _argument_words(name: str, old: Any, new: Any) -> str:
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        gone = [str(part) for part in old if part not in new]
        come = [str(part) for part in new if part not in old]
        words = [f"with {_list(come)}" if come else "", f"without {_list(gone)}" if gone else ""]
        return f"{name} {' and '.join(filter(None, words)) or 'in a different order'}"
    if new is None:
        return f"{name} is removed (it was {old!r})"
    return f"{name} is {new!r}" if old is None else f"{name} is {new!r} instead of {old!r}"


def _arguments(expectation: Expectation) -> str:
    columns = ("column", "column_A", "column_B", "column_list")
    others = [f"{name} {value!r}" for name, value in expectation.arguments.items() if name not in columns]
    return f", with {', '.join(others)}" if others else ""


# --- bad rows, steps, output ------------------------------------------------------------------------------------------


def _bad_rows(before: Contract, after: Contract) -> Iterator[ContractChange]:
    old, new = before.bad_rows, after.bad_rows
    if old.policy != new.policy:
        effect = _stricter_if(new.policy == "reject_file")
        yield ContractChange(effect, f"bad rows: {new.policy} instead of {old.policy}")
    for field in ("max_fraction", "max_count"):
        was, is_now = getattr(old, field), getattr(new, field)
        if was != is_now:
            effect = _by_size(was, is_now, larger_is_stricter=False)
            yield ContractChange(effect, f"bad rows: {_argument_words(field, was, is_now)}")


def _steps(before: Contract, after: Contract) -> Iterator[ContractChange]:
    old, new = [_step(step) for step in before.preprocess], [_step(step) for step in after.preprocess]
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        for step in old[start:end]:
            yield ContractChange(Effect.OUTPUT, f"step {step} is removed{' at this position' if step in new else ''}")
        for number, step in enumerate(new[new_start:new_end], start=new_start + 1):
            yield ContractChange(Effect.OUTPUT, f"step {step} is added, as number {number}")
    code = [contract.steps_path.read_bytes() if contract.steps_path else b"" for contract in (before, after)]
    if code[0] != code[1] and any(step.is_own for step in (*before.preprocess, *after.preprocess)):
        yield ContractChange(Effect.OUTPUT, "the dataset's steps.py is different; compare its code to see the effect")


def _step(step: WrittenStep) -> str:
    arguments = ", ".join(f"{name} {value!r}" for name, value in step.arguments.items())
    return f"{step.name} ({arguments})" if arguments else step.name


def _output(before: Contract, after: Contract) -> Iterator[ContractChange]:
    old, new = (
        contract.output.model_copy(update={"compression": contract.output.effective_compression})
        for contract in (before, after)
    )
    yield from _differing("output: ", Effect.OUTPUT, old, new)
    yield from _differing("", Effect.OUTPUT, before, after, {"on_reupload"})


def _descriptions(before: Contract, after: Contract) -> Iterator[ContractChange]:
    old, new = ([contract.description, *_described(contract)] for contract in (before, after))
    if old != new:
        yield ContractChange(Effect.NONE, "descriptions were changed")


def _described(contract: Contract) -> list[str]:
    columns = [f"{name}: {column.description}" for name, column in contract.columns.items() if column.description]
    return sorted([*columns, *(f"{e.name}: {e.description}" for e in contract.expectations if e.description)])


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))
