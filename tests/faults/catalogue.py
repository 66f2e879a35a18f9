"""Generate docs/faults.md, the list of injected faults, from the marks of the tests.

    python -m tests.faults.catalogue > docs/faults.md

A test names its fault with `@fault("Queue and task", "SIGKILL after receive", expected="delivered again, processed")`;
a parametrized test does so for each case: `pytest.param(..., marks=fault(...))`.
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
"""The output of the last full soak, with machine and date; shown on the page if the file exists."""

_INTRODUCTION = """\
# Faults

This page lists what can go wrong, the expected behavior of Sluice, and the test that injects the fault. Every fault
is real: processes are killed, calls to AWS are refused or delayed, responses are lost, servers are stopped, timeouts
expire. Every test that uploads a file also checks: exactly one receipt per object version, nothing published twice,
the message deleted or in the dead-letter queue, every row accounted for, and one clear named error if there is an
error.

`make faults` runs all of them except those marked *slow*, which `make faults-all` includes. This page is generated
from the tests by `python -m tests.faults.catalogue > docs/faults.md`; a test checks that it is current.
"""


_SOAK = """\
## The soak

`make soak` uploads 10,000 small files (`SOAK_UPLOADS` and `SOAK_SEED` change that), good and bad ones, a third of
them re-uploads of an earlier key, while faults are injected at random, drawn from the seed:

- Events arrive late, out of order, several times, and two in one. The Lambda's calls are refused, dropped, or
  executed and their responses lost. An event that Lambda gives up after three tries is sent again.
- Workers are killed with SIGKILL before or after a named call and at random times, stopped with SIGTERM, or paused
  with SIGSTOP until another worker has their message. Their calls are refused, dropped, cut short, or executed and
  the response lost, some of them for as long as boto3 retries.
- One worker in ten runs a different release, whose contracts produce different bytes for the same file.
- Re-runs are forced, through the queue and manually, some of these with another dataset's contract.
- Some messages cannot be parsed. The dead-letter queue is redriven, and must contain only these messages at the end.

The Lambda's handler, the container's command and everything that it calls are real and run in separate processes,
with the embedded cloud's S3, SQS and StartExecution, and with a Prefect server. When everything is quiet, the buckets
are read from the outside and compared with the generated files: each object version has one receipt, no attempt has
two, and the receipt's numbers match the file; each row that must be published is in one object, that object is current
in the index, and there is nothing else under `data/`; each upload is in a flow run, and the run of its receipt's
attempt has the receipt's outcome. `lost`, `doubled`, `unrecorded` and `wrong` count the deviations. The same seed
gives the same faults; which worker is hit by which fault depends on the operating system.

For speed, these parts are not included: faults between tasks and Prefect, S3's own notifications and the Lambda
runtime, ECS, IAM, large and unusual files, and the definition of the state machine, whose role the soak takes: it
starts tasks until the queue is empty. The chain tests and the faults above cover these parts.

What a killed worker wrote is deleted when its message comes again. The first delivery of a message looks for nothing,
because a list costs as much as a write. So two things are left to `reconcile`, which deletes the outputs that no
receipt references, and to the next forced re-run of the upload:

- A worker stalls between looking for a receipt and writing its output, another worker processes the upload and deletes
  its message, and the first one continues, writes, and is killed before it can see the other's receipt.
- A worker writes its output and is killed, its message is given up, and the message that is redriven is published with
  other bytes, because the contract or the release changed meanwhile.

Until then the output is under `data/`; readers that use receipts or the index never see it. The soak does what
`reconcile` does once everything is quiet. `left_behind` counts these outputs; if there are more than killed
workers can explain, the soak fails.
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
    """Mark a test with the fault that it injects and the expected behavior."""
    if area not in AREAS:
        raise ValueError(f"there is no area {area!r}; the areas are {', '.join(AREAS)}")
    return pytest.mark.fault(area, what, expected=expected)


def faults() -> list[Fault]:
    """Return every fault that a test in this folder names, in the order of the areas and of the tests."""
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
    """Return the current content of docs/faults.md."""
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
        parts += ["The longest run so far:\n", "```text", SOAK_RECORD.read_text().strip(), "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
