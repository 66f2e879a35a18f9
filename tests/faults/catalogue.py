"""Which faults are tested, what is expected, and by which test: docs/faults.md is made from the tests' own words.

    python -m tests.faults.catalogue > docs/faults.md

A test says its fault with `@fault("Queue and task", "SIGKILL after receive", expected="delivered again, one receipt")`;
a parametrized test says it for each case: `pytest.param(..., marks=fault(...))`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

Area = Literal["Trigger", "Queue and task", "S3 and network", "Prefect", "Data", "State agreement"]
AREAS: tuple[Area, ...] = get_args(Area)
_FOLDER = Path(__file__).parent
PAGE = _FOLDER.parent.parent / "docs" / "faults.md"
SOAK_RECORD = _FOLDER / "soak_record.txt"
"""What the last full soak printed, with machine and date; shown on the page when it is there."""

_INTRODUCTION = """\
# Faults

What goes wrong, what is expected of Sluice then, and the test that makes it go wrong. Every fault is injected for
real: processes are killed, calls to AWS refused, delayed or answered and the answer lost, servers stopped, time-outs
run out. Expected everywhere, and checked by every test that hands in an upload: exactly one receipt per object version,
nothing published twice, the message deleted or in the dead-letter queue, every row accounted for, and one clear named
error where there is one.

`make faults` runs them all but those marked *slow*, which `make faults-all` adds. This page is made from the tests by
`python -m tests.faults.catalogue > docs/faults.md`; a test holds it to that.
"""


@dataclass(frozen=True)
class Fault:
    """One fault: the area it belongs to, what happens, what is expected, and the test that shows it."""

    area: Area
    what: str
    expected: str
    test: str
    slow: bool


def fault(area: Area, what: str, *, expected: str) -> pytest.MarkDecorator:
    """Say which fault a test injects, and what is expected of Sluice then."""
    if area not in AREAS:
        raise ValueError(f"there is no area {area!r}; the areas are {', '.join(AREAS)}")
    return pytest.mark.fault(area, what, expected=expected)


def faults() -> list[Fault]:
    """Every fault that a test in this folder names, in the order of the areas and of the tests."""
    modules = sorted(name for _, name, _ in pkgutil.iter_modules([str(_FOLDER)]) if name.startswith("test_"))
    found = [named for name in modules for named in _faults_of(name)]
    return sorted(found, key=lambda each: AREAS.index(each.area))


def _faults_of(module_name: str) -> Iterator[Fault]:
    module = importlib.import_module(f"tests.faults.{module_name}")
    for name, function in vars(module).items():
        if not name.startswith("test_") or not callable(function):
            continue
        own = _marks(function)
        slow = any(mark.name == "slow" for mark in [*own, *_marks(module)])
        for case in [own, *_marks_of_cases(own)]:
            slow_case = slow or any(mark.name == "slow" for mark in case)
            for mark in reversed(case):  # decorators are applied from the bottom up
                if mark.name == "fault":
                    area, what = mark.args
                    yield Fault(area, what, mark.kwargs["expected"], f"{module_name}.py::{name}", slow_case)


def _marks_of_cases(marks: list[pytest.Mark]) -> Iterator[list[pytest.Mark]]:
    for mark in marks:
        if mark.name == "parametrize":
            for case in mark.args[1]:
                yield _plain(getattr(case, "marks", ()))


def _marks(holder: Any) -> list[pytest.Mark]:
    marks = getattr(holder, "pytestmark", [])
    return _plain(marks if isinstance(marks, list) else [marks])


def _plain(marks: Iterable[pytest.Mark | pytest.MarkDecorator]) -> list[pytest.Mark]:
    return [mark.mark if isinstance(mark, pytest.MarkDecorator) else mark for mark in marks]


def page() -> str:
    """The page docs/faults.md as the tests say it today."""
    known = faults()
    parts = [_INTRODUCTION]
    for area in AREAS:
        rows = [each for each in known if each.area == area]
        if rows:
            parts += [f"## {area}\n", "| fault | expected | test |\n|---|---|---|"]
            parts += [f"| {each.what} | {each.expected} | `{each.test}`{' *slow*' * each.slow} |" for each in rows]
            parts.append("")
    if SOAK_RECORD.exists():
        parts += ["## The soak\n", "```text", SOAK_RECORD.read_text().strip(), "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
