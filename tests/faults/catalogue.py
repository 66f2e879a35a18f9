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


_SOAK = """\
## The soak

`make soak` hands in 10,000 small files (`SOAK_UPLOADS` and `SOAK_SEED` change that), good and bad ones, a third of them
re-uploads of an earlier key, while everything goes wrong at random, drawn from the seed:

- events come late, in another order, several times, and two in one; the Lambda's calls are refused, dropped, or done
  and their answers lost; what Lambda gives up after three tries is handed in again;
- workers are killed with SIGKILL before or after a named call and at random times, stopped by SIGTERM, and held with
  SIGSTOP until another one has their message; their calls are refused, dropped, cut short, or done and the answer
  lost, some for as long as boto3 tries;
- one worker in ten is of another release, whose contracts give other bytes for the same file;
- re-runs are forced, through the queue and by hand, some of these by another dataset's contract;
- some messages cannot be read by anybody; the dead-letter queue is redriven, and must hold these alone in the end.

Real are the Lambda's handler, the container's command and all that it calls, in processes of their own, and the
embedded cloud's S3, SQS and StartExecution. When all is quiet the buckets are read from the outside and compared with
what the files' maker knows: each object version has one receipt, no attempt has two, and the receipt's numbers are the
file's; each row that must be published is in one object, that object is current in the index, and nothing else lies
under `data/`. `lost`, `doubled` and `wrong` count what is not so. The faults are the same for the same seed; which
worker meets which of them is up to the operating system.

Not in it, for speed: Prefect (the container promises to do without), S3's own notifications and the Lambda runtime,
ECS, IAM, large and odd files, and the definition of the state machine, whose part the soak plays: it starts tasks until
every receipt is there. The chain tests and the faults above have these.

One thing no worker can clean up: a worker that stood still between looking for a receipt and writing its output until
another one had done the upload and deleted its message, that then goes on, writes, and is killed before it can see the
other's receipt. No receipt speaks of what it wrote, so whoever reads by receipts or by the index never sees it; under
`data/` it lies until the next attempt at that object version, or the next run of `reconcile`, which takes it away. The
soak does what that does once all is quiet; `left_behind` counts what there was, and more than overtaken workers that
were killed can have left fails it.
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
    parts.append(_SOAK)
    if SOAK_RECORD.exists():
        parts += ["The longest one so far:\n", "```text", SOAK_RECORD.read_text().strip(), "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
