"""Generates docs/errors.md, the list of all errors, from the error classes and the state machines.

python -m tests.unit.docs.error_page > docs/errors.md
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blocks
import deployment
import flows
import lambda_trigger
from flows.refinery.errors import FileRejected, SluiceError, TerminalError, TransientError

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "errors.md"
_PACKAGES = (lambda_trigger, flows, blocks, deployment)
_NO_ERRORS = (".contracts", ".emulator", "__main__")  # users' custom steps, and code that runs in the AWS emulator
_BASES = (SluiceError, TransientError, TerminalError)
_INTRODUCTION = """\
# Errors

This page lists every named error of Sluice. It is generated from the classes and the state machines by
`python -m tests.unit.docs.error_page > docs/errors.md`, and a test checks that it is current. A message states what is
wrong, where, and what to do; it never contains a value from the data.
"""
_KINDS = (
    (
        "The file is rejected",
        "The receipt contains the reasons, and the flow run is Failed, with the tag `rejected`. "
        "No row is published and the message is deleted. Correct the file (or its contract) and upload it "
        "again.",
    ),
    (
        "The failure may be temporary",
        "In a task, the message returns to the queue, and the upload is tried again. After the maximum number of "
        "deliveries, the message moves to the dead-letter queue: remove the cause, and redrive it. If a command fails "
        "with such an error, run it again.",
    ),
    (
        "The failure needs an action",
        "A retry would fail in the same way. Follow the instructions in the message.",
    ),
)


def error_classes() -> list[type[Exception]]:
    """Return every error class of the project, except the base classes, sorted by name."""
    found = {kind for module in _modules() for kind in vars(module).values() if _is_own_error(kind)}
    return sorted(found - set(_BASES), key=lambda kind: kind.__name__)


def kind_of(error: type[Exception]) -> int:
    """Return the index of the section in which the page lists an error."""
    from flows.refinery.refine import REJECTING

    if issubclass(error, (FileRejected, *REJECTING)):
        return 0
    return 1 if issubclass(error, TransientError) else 2


def state_errors() -> list[tuple[str, str, str]]:
    """Return (state machine, error, cause) for each Fail state."""
    rows = []
    for path in sorted((ROOT / "stepfunctions").glob("*.asl.json")):
        for state in json.loads(path.read_text())["States"].values():
            if state["Type"] == "Fail":
                rows.append((path.name.split(".")[0], state["Error"], _plain_cause(state["Cause"])))
    return rows


def page() -> str:
    """Return the content that the page should have."""
    parts = [_INTRODUCTION]
    for number, (title, meaning) in enumerate(_KINDS):
        rows = [error for error in error_classes() if kind_of(error) == number]
        parts += [f"## {title}\n", meaning, "", "| error | code | when |\n|---|---|---|"]
        parts += [f"| `{error.__name__}` | {_code(error)} | {_condition(error)} |" for error in rows]
        parts.append("")
    parts += ["## Executions\n", "The errors with which a Step Functions execution fails.\n"]
    parts += ["| state machine | error | cause |\n|---|---|---|"]
    parts += [f"| {machine} | `{error}` | {cause} |" for machine, error, cause in state_errors()]
    return "\n".join(parts) + "\n"


def _modules() -> Iterator[Any]:
    for package in _PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(part in found.name for part in _NO_ERRORS):
                yield importlib.import_module(found.name)


def _is_own_error(thing: object) -> bool:
    if not inspect.isclass(thing) or not issubclass(thing, Exception) or thing.__name__.startswith("_"):
        return False
    return thing.__module__.split(".")[0] in {package.__name__ for package in _PACKAGES}


def _code(error: type[Exception]) -> str:
    return f"`{error.code}`" if issubclass(error, FileRejected) else ""


def _condition(error: type[Exception]) -> str:
    text = inspect.cleandoc(error.__doc__ or "").split("\nAttributes:")[0].split("\nArgs:")[0]
    return " ".join(text.split()).replace("|", "\\|")


def _plain_cause(cause: str) -> str:
    """Return the string literals of a JSONata cause, with an ellipsis in place of each inserted value."""
    if not cause.startswith("{%"):
        return cause
    literals = re.findall(r"'([^']*)'", cause)
    return re.sub(r"\$\{(\w+)\}", r"\1", "…".join(literals)).replace("|", "\\|") or "the receipt's reason"


if __name__ == "__main__":
    sys.stdout.write(page())
