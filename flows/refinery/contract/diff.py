"""What a change to a contract means: which rules are stricter or looser, and what is read or published differently."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flows.refinery.contract.model import Column, Contract, Expectation, Step

_POLICIES = ("evolve", "quarantine", "freeze")  # the later, the stricter
_SEVERITIES = ("info", "warning", "critical")


class Effect(StrEnum):
    """What a change does to the files that arrive from now on."""

    STRICTER = "stricter"
    LOOSER = "looser"
    READS = "reads differently"
    OUTPUT = "different output"
    MONITORING = "monitoring"
    NONE = "no effect"


@dataclass(frozen=True)
class Change:
    """One change: its effect, and a sentence that describes it."""

    effect: Effect
    message: str


def changes_between(before: Contract, after: Contract) -> list[Change]:
    """Return every difference in meaning, the stricter rules first."""
    found = [
        *_source(before, after),
        *_columns(before, after),
        *_policies(before, after),
        *_expectations(before.expectations, after.expectations),
        *_bad_rows(before, after),
        *_steps(before.preprocess, after.preprocess),
        *_own_steps(before, after),
        *_output(before, after),
        *_expected(before, after),
        *_at_once(before, after),
        *_descriptions(before, after),
    ]
    return sorted(found, key=lambda change: list(Effect).index(change.effect))


# --- the files, and how they are read ---------------------------------------------------------------------------------


def _source(before: Contract, after: Contract) -> Iterator[Change]:
    if before.dataset != after.dataset:
        yield Change(Effect.OUTPUT, f"the dataset is {after.dataset!r} instead of {before.dataset!r}")
    if before.sources != after.sources and before.dataset == after.dataset:
        yield Change(Effect.READS, f"files come from {_list(after.sources)} instead of {_list(before.sources)}")
    yield from _differing("format: ", Effect.READS, before.format.model_dump(), after.format.model_dump())


def _differing(where: str, effect: Effect, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """One change for each field that differs."""
    for name in old:
        if old[name] != new[name]:
            yield Change(effect, f"{where}{name} is {new[name]!r} instead of {old[name]!r}")


# --- columns ----------------------------------------------------------------------------------------------------------


def _columns(before: Contract, after: Contract) -> Iterator[Change]:
    for name, column in before.columns.items():
        if name not in after.columns:
            yield _removed_column(name, column, after)
    for name, column in after.columns.items():
        if name in before.columns:
            yield from _column(name, before.columns[name], column)
            yield from _required(name, before, after)
        elif column.required and after.missing_columns != "evolve":
            yield Change(Effect.STRICTER, f"column {name!r} is required, as {column.type}")
        else:
            yield Change(Effect.READS, f"column {name!r} is read as {column.type}")


def _removed_column(name: str, column: Column, after: Contract) -> Change:
    if after.unknown_columns == "evolve":
        return Change(Effect.LOOSER, f"column {name!r} ({column.type}) is no longer required")
    fate = "files with it are rejected" if after.unknown_columns == "freeze" else "rows with a value are quarantined"
    return Change(Effect.STRICTER, f"column {name!r} ({column.type}) is unknown now: {fate}")


_ANY_TYPE_BUT_STRING = ("integer", "number", "json", "boolean", "timestamp", "date", "time")
_WIDER = {("integer", "number"), ("date", "timestamp"), *((each, "string") for each in _ANY_TYPE_BUT_STRING)}


def _column(name: str, before: Column, after: Column) -> Iterator[Change]:
    if before.type != after.type:
        pair, where = (before.type, after.type), f"column {name!r} is {after.type} instead of {before.type}"
        if pair in _WIDER:
            yield Change(Effect.LOOSER, f"{where}: every value that was valid still is")
        else:
            yield Change(Effect.STRICTER, f"{where}: values that cannot be read as this type are quarantined")
        yield Change(Effect.OUTPUT, f"column {name!r} is published as {after.type} instead of {before.type}")
    if before.nullable != after.nullable:
        effect = Effect.LOOSER if after.nullable else Effect.STRICTER
        yield Change(effect, f"column {name!r} {'may' if after.nullable else 'must not'} have missing values")
    options = {"format", "timezone", "missing_values"}
    old, new = (column.model_dump(include=options) for column in (before, after))
    yield from _differing(f"column {name!r}: ", Effect.READS, old, new)


def _required(name: str, before: Contract, after: Contract) -> Iterator[Change]:
    is_now = after.columns[name].required
    if before.columns[name].required == is_now:
        return
    if after.missing_columns == "evolve":
        reported = "is reported" if is_now else "is no longer reported"
        yield Change(Effect.MONITORING, f"column {name!r}: a file without it {reported}")
    else:
        required = "is required" if is_now else "is no longer required"
        yield Change(Effect.STRICTER if is_now else Effect.LOOSER, f"column {name!r} {required}")


def _policies(before: Contract, after: Contract) -> Iterator[Change]:
    for field in ("unknown_columns", "missing_columns"):
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            yield Change(_by_rank(_POLICIES, old, new), f"{field}: {new} instead of {old}")


# --- expectations -----------------------------------------------------------------------------------------------------


def _expectations(before: Sequence[Expectation], after: Sequence[Expectation]) -> Iterator[Change]:
    old, new = _by_subject(before), _by_subject(after)
    for subject, expectation in old.items():
        if subject not in new:
            yield Change(_weight(expectation, Effect.LOOSER), f"{subject} is removed")
    for subject, expectation in new.items():
        if subject in old:
            yield from _expectation(subject, old[subject], expectation)
        else:
            yield Change(_weight(expectation, Effect.STRICTER), f"{subject} is added{_arguments(expectation)}")


def _by_subject(expectations: Sequence[Expectation]) -> dict[str, Expectation]:
    """Expectations by name and columns; with a number where several have the same."""
    seen: Counter[str] = Counter()
    result = {}
    for expectation in expectations:
        subject = f"{expectation.name}({', '.join(expectation.columns)})"
        seen[subject] += 1
        result[subject if seen[subject] == 1 else f"{subject}#{seen[subject]}"] = expectation
    return result


def _weight(expectation: Expectation, effect: Effect) -> Effect:
    """An expectation with severity info makes nothing stricter."""
    return Effect.NONE if expectation.severity == "info" else effect


def _expectation(subject: str, before: Expectation, after: Expectation) -> Iterator[Change]:
    if before.severity != after.severity:
        effect = _by_rank(_SEVERITIES, before.severity, after.severity)
        yield Change(effect, f"{subject}: its severity is {after.severity} instead of {before.severity}")
    for name in dict.fromkeys([*before.arguments, *after.arguments]):
        old, new = before.arguments.get(name), after.arguments.get(name)
        if old != new:
            effect = _weight(after, _effect_of_argument(after.name, name, old, new))
            yield Change(effect, f"{subject}: {_argument_words(name, old, new)}")


def _effect_of_argument(expectation: str, name: str, old: Any, new: Any) -> Effect:
    if name in ("min_value", "mostly"):
        return _by_size(old, new, larger_is=Effect.STRICTER, absent=1.0 if name == "mostly" else None)
    if name == "max_value":
        return _by_size(old, new, larger_is=Effect.LOOSER, absent=None)
    if name == "value_set" and isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return _by_set(expectation, set(map(str, old)), set(map(str, new)))
    if name in ("strict_min", "strict_max"):
        return Effect.STRICTER if new else Effect.LOOSER
    if name in ("row_condition", "ignore_row_if") and (old is None or new is None):
        return Effect.LOOSER if old is None else Effect.STRICTER
    return Effect.STRICTER  # whether a regex or a type became looser is not known, so a person should look


def _by_size(old: Any, new: Any, *, larger_is: Effect, absent: Any) -> Effect:
    other = Effect.LOOSER if larger_is is Effect.STRICTER else Effect.STRICTER
    old, new = (absent if old is None else old), (absent if new is None else new)
    if old is None:
        return Effect.STRICTER
    if new is None:
        return Effect.LOOSER
    try:
        return larger_is if new > old else other
    except TypeError:
        return Effect.STRICTER


def _by_set(expectation: str, old: set[str], new: set[str]) -> Effect:
    if old == new:
        return Effect.NONE
    more_is = Effect.STRICTER if "not_be_in_set" in expectation or "contain_set" in expectation else Effect.LOOSER
    fewer_is = Effect.LOOSER if more_is is Effect.STRICTER else Effect.STRICTER
    if "equal_set" in expectation or (new - old and old - new):
        return Effect.STRICTER
    return more_is if new > old else fewer_is


def _argument_words(name: str, old: Any, new: Any) -> str:
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        gone = [str(part) for part in old if part not in new]
        come = [str(part) for part in new if part not in old]
        words = [f"with {_list(come)}" if come else "", f"without {_list(gone)}" if gone else ""]
        return f"{name} {' and '.join(filter(None, words)) or 'in another order'}"
    if new is None:
        return f"{name} is removed (it was {old!r})"
    return f"{name} is {new!r}" if old is None else f"{name} is {new!r} instead of {old!r}"


def _arguments(expectation: Expectation) -> str:
    columns = ("column", "column_A", "column_B", "column_list")
    others = [f"{name} {value!r}" for name, value in expectation.arguments.items() if name not in columns]
    return f", with {', '.join(others)}" if others else ""


# --- bad rows, steps, output ------------------------------------------------------------------------------------------


def _bad_rows(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = before.bad_rows, after.bad_rows
    if old.policy != new.policy:
        effect = Effect.STRICTER if new.policy == "reject_file" else Effect.LOOSER
        yield Change(effect, f"bad rows: {new.policy} instead of {old.policy}")
    for field in ("max_fraction", "max_count"):
        was, is_now = getattr(old, field), getattr(new, field)
        if was != is_now:
            effect = _by_size(was, is_now, larger_is=Effect.LOOSER, absent=None)
            yield Change(effect, f"bad rows: {_argument_words(field, was, is_now)}")


def _steps(before: Sequence[Step], after: Sequence[Step]) -> Iterator[Change]:
    old, new = [_step(step) for step in before], [_step(step) for step in after]
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        for step in old[start:end]:
            yield Change(Effect.OUTPUT, f"step {step} is removed{' at this position' if step in new else ''}")
        for number, step in enumerate(new[new_start:new_end], start=new_start + 1):
            yield Change(Effect.OUTPUT, f"step {step} is added, as number {number}")


def _step(step: Step) -> str:
    arguments = ", ".join(f"{name} {value!r}" for name, value in step.arguments.items())
    return f"{step.name} ({arguments})" if arguments else step.name


def _own_steps(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = (contract.steps_path.read_bytes() if contract.steps_path else b"" for contract in (before, after))
    uses_them = any(step.is_own for step in (*before.preprocess, *after.preprocess))
    if old != new and uses_them:
        yield Change(Effect.OUTPUT, "the dataset's steps.py is different; compare its code to see the effect")


def _output(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = before.output, after.output
    fields = [{**part.model_dump(), "compression": part.effective_compression} for part in (old, new)]
    yield from _differing("output: ", Effect.OUTPUT, *fields)
    if before.on_reupload != after.on_reupload:
        yield Change(Effect.OUTPUT, f"on_reupload: {after.on_reupload} instead of {before.on_reupload}")


def _expected(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = before.expected_every_hours, after.expected_every_hours
    if old != new:
        now = "overdue files are no longer reported" if new is None else f"a file is expected every {new:g} h"
        was = "" if old is None else f" (before: every {old:g} h)"
        yield Change(Effect.MONITORING, f"{now}{was}")


def _at_once(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = before.max_concurrent_uploads, after.max_concurrent_uploads
    if old != new:
        limits = ("no limit" if limit is None else f"at most {limit}" for limit in (new, old))
        yield Change(Effect.MONITORING, "uploads processed at once: {} instead of {}".format(*limits))


def _descriptions(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = ([contract.description, *_described(contract)] for contract in (before, after))
    if old != new:
        yield Change(Effect.NONE, "descriptions were changed")


def _described(contract: Contract) -> list[str]:
    columns = [f"{name}: {column.description}" for name, column in contract.columns.items() if column.description]
    return sorted([*columns, *(f"{e.name}: {e.description}" for e in contract.expectations if e.description)])


# --- helpers ----------------------------------------------------------------------------------------------------------


def _by_rank(ranks: Sequence[str], old: str, new: str) -> Effect:
    return Effect.STRICTER if ranks.index(new) > ranks.index(old) else Effect.LOOSER


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))
