"""Generates docs/faults.md, the list of injected faults, from the marks of the tests.

    python -m tests.faults.catalogue > docs/faults.md

A test names its fault with `@fault("Queue and task", "SIGKILL after receive", expected="delivered again, processed")`.
A parametrized test does so for each case, with `pytest.param(..., marks=fault(...))`.
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
"""The output of the last full soak, with its machine and date. The page shows it if the file exists."""

_INTRODUCTION = """\
# Faults

This page lists what can go wrong, the expected behavior of Sluice, and the test that injects the fault. The faults are
real: processes are killed, calls to AWS are rejected or delayed, responses are lost, servers are stopped, and timeouts
expire. Most tests that upload a file also check that each object version has exactly one receipt, that nothing was
published twice, that the message was deleted or is in the dead-letter queue, and that every row is accounted for.

`make faults` runs all tests except those marked *slow*, which `make faults-all` includes. This page is generated from
the tests by `python -m tests.faults.catalogue > docs/faults.md`, and a test checks that it is current.
"""


_SOAK = """\
## The soak

`make soak` uploads 10,000 small files, some good and some bad (`SOAK_UPLOADS` and `SOAK_SEED` change the number and the
seed). A third of them are re-uploads of an earlier key. Meanwhile, faults are drawn at random from the seed and
injected:

- Events arrive late, out of order or several times, or two arrive in one. The Lambda's calls are rejected or dropped,
  or they are executed but their responses are lost. An event that Lambda gives up on after three attempts is resent.
- Workers are killed with SIGKILL before or after certain calls or at random times, are stopped with SIGTERM, or are
  paused with SIGSTOP until another worker has received their message. Their calls are rejected, dropped or cut short,
  or they are executed but their responses are lost. Some calls fail until boto3 stops retrying.
- One worker in ten runs a different release, whose contracts produce different bytes for the same file.
- Re-runs are forced, both through the queue and manually. Some manual re-runs use another dataset's contract.
- Some messages cannot be parsed. The dead-letter queue is redriven, and must contain only these messages at the end.

The Lambda's handler, the container's command and everything that they call are real, and each worker is a separate
process. They use a Prefect server, and S3, SQS and StartExecution in the local cloud (a local AWS emulator, MiniStack).
Once everything is quiet, the buckets are read from the outside and compared with the generated files. Each object
version must have one receipt, no attempt may have two, and the numbers in the receipt must match the file. Each row
that must be published must be in exactly one object, that object must be current in the index, and nothing else may be
under `data/`. Each upload must be in a flow run, and the run of the receipt's attempt must have the receipt's outcome.
`lost`, `doubled`, `unrecorded` and `wrong` count the deviations. The same seed always gives the same faults, but which
worker meets which fault depends on the operating system.

For speed, these parts are not included: faults between tasks and Prefect, S3's own notifications and the Lambda
runtime, ECS, IAM, large and unusual files, and the definition of the state machine. The soak itself does what the state
machine would do, and starts tasks until the queue is empty. The tests in `tests/chain` and the faults above cover these
parts.

The output of a killed worker is deleted when its message is delivered again. At the first delivery of a message, a
worker does not look for such output, because listing objects costs as much as a write. So in two cases, the output
stays until `reconcile` deletes it, because no receipt references it, or until the next forced re-run of the upload:

- A worker stalls after it has looked for a receipt and before it writes its output. Meanwhile, another worker processes
  the upload and deletes its message. The first worker then continues, writes its output, and is killed before it can
  see the other's receipt.
- A worker writes its output and is killed, and Sluice gives up on the message. Later the message is redriven, and the
  upload is published with different bytes, because the contract or the release has changed in the meantime.

Until then the output is under `data/`, but readers that use receipts or the index never see it. Once everything is
quiet, the soak does what `reconcile` does. `left_behind` counts these outputs. If there are more of them than killed
workers can explain, the soak fails.
"""


@dataclass(frozen=True)
class Fault:
    """A fault with its area, what happens, what is expected, and the test that injects it."""

    area: Area
    what: str
    expected: str
    test: str
    slow: bool


def fault(area: Area, what: str, *, expected: str) -> pytest.MarkDecorator:
    """Return a mark for a test that injects this fault and checks the expected behavior.

    Raises:
        ValueError: there is no such area.
    """
    if area not in AREAS:
        raise ValueError(f"there is no area {area!r}; the areas are {', '.join(AREAS)}")
    return pytest.mark.fault(area, what, expected=expected)


def faults() -> list[Fault]:
    """Return every fault that a test in this folder names, ordered by area and then by test."""
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
