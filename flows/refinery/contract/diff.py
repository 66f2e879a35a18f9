"""What a change of a contract means, in words: which rules became stricter or looser, and what comes out otherwise."""

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
    """What a change does to files that come in from now on."""

    STRICTER = "stricter"
    LOOSER = "looser"
    READS = "reads otherwise"
    OUTPUT = "other output"
    WATCH = "other watch"
    WORDS = "no effect"


@dataclass(frozen=True)
class Change:
    """One change: what it does, and a sentence on it."""

    effect: Effect
    message: str


def changes_between(before: Contract, after: Contract) -> list[Change]:
    """Every difference in meaning, what became stricter first."""
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


# --- what falls under it, and how it is read --------------------------------------------------------------------------


def _source(before: Contract, after: Contract) -> Iterator[Change]:
    if before.dataset != after.dataset:
        yield Change(Effect.OUTPUT, f"the dataset is {after.dataset!r} instead of {before.dataset!r}")
    if before.sources != after.sources and before.dataset == after.dataset:
        yield Change(Effect.READS, f"files come from {_list(after.sources)} instead of {_list(before.sources)}")
    old, new = before.format.model_dump(), after.format.model_dump()
    for option in old:
        if old[option] != new[option]:
            yield Change(Effect.READS, f"format: {option} is {new[option]!r} instead of {old[option]!r}")


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
            yield Change(Effect.STRICTER, f"column {name!r} must be there, as {column.type}")
        else:
            yield Change(Effect.READS, f"column {name!r} may be there, as {column.type}")


def _removed_column(name: str, column: Column, after: Contract) -> Change:
    if after.unknown_columns == "evolve":
        return Change(Effect.LOOSER, f"column {name!r} ({column.type}) need not be there any more")
    return Change(Effect.STRICTER, f"column {name!r} ({column.type}) is unknown now: files that have it {_fate(after)}")


def _fate(contract: Contract) -> str:
    return "are rejected" if contract.unknown_columns == "freeze" else "have their rows quarantined"


_WIDER = {("integer", "number"), ("date", "timestamp"), *((kind, "string") for kind in ("integer", "number", "json"))}
_WIDER |= {(kind, "string") for kind in ("boolean", "timestamp", "date", "time")}


def _column(name: str, before: Column, after: Column) -> Iterator[Change]:
    if before.type != after.type:
        pair, where = (before.type, after.type), f"column {name!r} is {after.type} instead of {before.type}"
        if pair in _WIDER:
            yield Change(Effect.LOOSER, f"{where}: every value that was fine still is")
        else:
            yield Change(Effect.STRICTER, f"{where}: values that cannot be read so are quarantined")
        yield Change(Effect.OUTPUT, f"column {name!r} is published as {after.type} instead of {before.type}")
    if before.nullable != after.nullable:
        effect = Effect.LOOSER if after.nullable else Effect.STRICTER
        yield Change(effect, f"column {name!r} {'may' if after.nullable else 'may not'} have missing values")
    for option in ("format", "timezone", "missing_values"):
        old, new = getattr(before, option), getattr(after, option)
        if old != new:
            yield Change(Effect.READS, f"column {name!r}: {option} is {new!r} instead of {old!r}")


def _required(name: str, before: Contract, after: Contract) -> Iterator[Change]:
    is_now = after.columns[name].required
    if before.columns[name].required == is_now:
        return
    if after.missing_columns == "evolve":
        told = "is told" if is_now else "is not told any more"
        yield Change(Effect.WATCH, f"column {name!r}: that it is missing {told}")
    elif is_now:
        yield Change(Effect.STRICTER, f"column {name!r} must be there")
    else:
        yield Change(Effect.LOOSER, f"column {name!r} need not be there")


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
            yield Change(_weight(expectation, Effect.LOOSER), f"{subject} is not asked any more")
    for subject, expectation in new.items():
        if subject in old:
            yield from _expectation(subject, old[subject], expectation)
        else:
            yield Change(_weight(expectation, Effect.STRICTER), f"{subject} is asked{_arguments(expectation)}")


def _by_subject(expectations: Sequence[Expectation]) -> dict[str, Expectation]:
    """Expectations by name and columns; several of the same kind by their place among them."""
    seen: Counter[str] = Counter()
    result = {}
    for expectation in expectations:
        subject = f"{expectation.name}({', '.join(expectation.columns)})"
        seen[subject] += 1
        result[subject if seen[subject] == 1 else f"{subject}#{seen[subject]}"] = expectation
    return result


def _weight(expectation: Expectation, effect: Effect) -> Effect:
    """An expectation that is only counted makes nothing stricter."""
    return Effect.WORDS if expectation.severity == "info" else effect


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
    return Effect.STRICTER  # which way a regex or a type moved cannot be told: better to look


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
        return Effect.WORDS
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
        return f"no {name} any more (it was {old!r})"
    return f"{name} is {new!r}" if old is None else f"{name} is {new!r} instead of {old!r}"


def _arguments(expectation: Expectation) -> str:
    columns = ("column", "column_A", "column_B", "column_list")
    said = [f"{name} {value!r}" for name, value in expectation.arguments.items() if name not in columns]
    return f", with {', '.join(said)}" if said else ""


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
            yield Change(Effect.OUTPUT, f"step {step} is not done any more{_moved(step, new)}")
        for place, step in enumerate(new[new_start:new_end], start=new_start + 1):
            yield Change(Effect.OUTPUT, f"step {step} is done, as number {place}")


def _moved(step: str, others: Sequence[str]) -> str:
    return " at this place" if step in others else ""


def _step(step: Step) -> str:
    said = ", ".join(f"{name} {value!r}" for name, value in step.arguments.items())
    return f"{step.name} ({said})" if said else step.name


def _own_steps(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = (contract.steps_path.read_bytes() if contract.steps_path else b"" for contract in (before, after))
    uses_them = any(step.is_own for step in (*before.preprocess, *after.preprocess))
    if old != new and uses_them:
        yield Change(Effect.OUTPUT, "the dataset's own steps.py is another; what it does otherwise only its code says")


def _output(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = before.output, after.output
    values: Mapping[str, tuple[Any, Any]] = {
        "format": (old.format, new.format),
        "compression": (old.effective_compression, new.effective_compression),
        "partition_by": (list(old.partition_by), list(new.partition_by)),
    }
    for name, (was, is_now) in values.items():
        if was != is_now:
            yield Change(Effect.OUTPUT, f"output: {name} is {is_now!r} instead of {was!r}")
    if before.on_reupload != after.on_reupload:
        words = f"a new version of a file: {after.on_reupload} instead of {before.on_reupload}"
        yield Change(Effect.OUTPUT, words)


def _expected(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = before.expected_every_hours, after.expected_every_hours
    if old != new:
        told = "nobody is told any more when none comes" if new is None else f"a file is expected every {new:g} h"
        was = "" if old is None else f" (it was every {old:g} h)"
        yield Change(Effect.WATCH, f"{told}{was}")


def _at_once(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = before.max_concurrent_uploads, after.max_concurrent_uploads
    if old != new:
        limits = ("no limit" if limit is None else f"at most {limit}" for limit in (new, old))
        yield Change(Effect.WATCH, "uploads processed at once: {} instead of {}".format(*limits))


def _descriptions(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = ([contract.description, *_described(contract)] for contract in (before, after))
    if old != new:
        yield Change(Effect.WORDS, "descriptions were changed")


def _described(contract: Contract) -> list[str]:
    columns = [f"{name}: {column.description}" for name, column in contract.columns.items() if column.description]
    return sorted([*columns, *(f"{e.name}: {e.description}" for e in contract.expectations if e.description)])


# --- words ------------------------------------------------------------------------------------------------------------


def _by_rank(ranks: Sequence[str], old: str, new: str) -> Effect:
    return Effect.STRICTER if ranks.index(new) > ranks.index(old) else Effect.LOOSER


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))
