"""The state machines' definitions: valid graphs, bounded, and consistent with the template that fills them in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from deployment.aws.packaging import DEFAULT_TIMEOUTS, DEFINITIONS, definition
from tests.infra.state_machine_graph import placeholders_in, problems_of
from tests.infra.template import defaults_of, load_template, resource

MACHINES = {"process_upload": "ProcessUpload", "sweep": "Sweep"}
MAX_HISTORY_EVENTS = 25_000  # docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html


def machine(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DEFINITIONS / f"{name}.asl.json").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("name", MACHINES)
def test_every_path_ends_every_task_is_careful_and_every_loop_is_bounded(name: str) -> None:
    assert problems_of(machine(name)) == []


@pytest.mark.parametrize("name", MACHINES)
def test_the_template_fills_in_every_placeholder_and_no_other(name: str) -> None:
    numbers = DEFAULT_TIMEOUTS.placeholders if name == "process_upload" else {}
    packaged = definition(DEFINITIONS / f"{name}.asl.json", numbers).decode()
    substitutions = resource(load_template(), MACHINES[name])["Properties"]["DefinitionSubstitutions"]
    assert placeholders_in(packaged) == set(substitutions)


def test_the_longest_run_stays_within_the_history_limit() -> None:
    """The worst case that the parameters allow: every look and every launch with every retry."""
    states = machine("process_upload")["States"]
    limits = defaults_of(load_template(), "MaxValue")
    launch = states.pop("Drain the queue")
    one_look = sum(_events(state) for state in states.values() if state["Type"] not in ("Succeed", "Fail"))
    worst = limits["MaxLooks"] * one_look + limits["MaxAttempts"] * _events(launch)
    assert worst < MAX_HISTORY_EVENTS


def test_whatever_became_of_a_task_the_receipt_is_looked_for_again() -> None:
    """Also after a failed launch: another task may have published the file in the meantime."""
    task = machine("process_upload")["States"]["Drain the queue"]
    assert {task["Next"], *(catcher["Next"] for catcher in task["Catch"])} == {"Look for receipt"}


def _events(state: dict[str, Any]) -> int:
    """Count the events of a state: entered and exited; for each try of a task: scheduled, started, submitted, ended."""
    if state["Type"] != "Task":
        return 2
    per_try = 4 if state["Resource"].endswith(".sync") else 3
    retries: int = sum(retrier.get("MaxAttempts", 3) for retrier in state["Retry"])
    return 2 + per_try * (1 + retries)


def test_by_default_the_waits_between_attempts_outlast_the_visibility_timeout() -> None:
    """Otherwise every attempt would find the queue empty, because the message of the dead task becomes visible too
    late."""
    defaults = defaults_of(load_template(), "Default")
    waits = sum(defaults["RetryWaitSeconds"] * 2**attempt for attempt in range(defaults["MaxAttempts"] - 1))
    assert waits > defaults["VisibilityTimeoutSeconds"]


# --- the check itself -----------------------------------------------------------------------------------------


def _set(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def spoil(states: dict[str, Any]) -> None:
        here: Any = states
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = to

    return spoil


def _drop(state: str, field: str) -> Callable[[dict[str, Any]], None]:
    return lambda states: states[state].pop(field)


def _do_not_count(states: dict[str, Any]) -> None:
    states["Look for receipt"]["Assign"]["looks"] = "{% $looks %}"


def _do_not_guard(states: dict[str, Any]) -> None:
    states["No receipt yet"]["Choices"] = states["No receipt yet"]["Choices"][1:]


def _guard_too_late(states: dict[str, Any]) -> None:
    first, *others = states["No receipt yet"]["Choices"]
    states["No receipt yet"]["Choices"] = [*others, first]


def _go_round_the_guard(states: dict[str, Any]) -> None:
    states["Is there a receipt?"]["Default"] = "Count draining tasks"


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a next to nowhere": (
        _set("Remember", "Next", to="Missing"),
        "'Remember' leads to 'Missing', which does not exist",
    ),
    "a default to nowhere": (_set("Enough tasks?", "Default", to="Missing"), "which does not exist"),
    "a catch to nowhere": (_set("Read receipt", "Catch", 0, "Next", to="Missing"), "which does not exist"),
    "a state that nothing leads to": (_set("Orphan", to={"Type": "Succeed"}), "'Orphan' is never reached"),
    "a task without timeout": (_drop("Drain the queue", "TimeoutSeconds"), "'Drain the queue' has no timeout"),
    "a task without retry": (_drop("Count draining tasks", "Retry"), "'Count draining tasks' has no retry"),
    "a task without catch": (_drop("Look for receipt", "Catch"), "'Look for receipt' does not catch every error"),
    "retries in step": (
        _set("Drain the queue", "Retry", 0, "JitterStrategy", to="NONE"),
        "without JitterStrategy FULL",
    ),
    "a choice without default": (_drop("What does it say?", "Default"), "is a choice without a default"),
    "a failure without a word": (_drop("No receipt", "Cause"), "'No receipt' fails without saying"),
    "a state that leads nowhere": (_drop("Remember", "Next"), "from 'Remember' no end is reached"),
    "a loop that is not counted": (_do_not_count, "nothing bounds the loop"),
    "a loop without a guard": (_do_not_guard, "nothing bounds the loop"),
    "a guard behind a way back": (_guard_too_late, "nothing bounds the loop"),
    "a loop round the guard": (_go_round_the_guard, "nothing bounds the loop"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_check_finds(name: str) -> None:
    spoil, expected = BROKEN[name]
    broken = copy.deepcopy(machine("process_upload"))
    spoil(broken["States"])
    assert any(expected in problem for problem in problems_of(broken)), problems_of(broken)


def test_the_check_finds_a_start_that_does_not_exist() -> None:
    broken = machine("sweep") | {"StartAt": "Missing"}
    assert "StartAt names 'Missing', which does not exist" in problems_of(broken)
