"""Tests that the state machine's definition is a valid graph, is bounded, and is consistent with the template that
fills it in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from deployment.aws.packaging import DEFINITIONS, Timeouts, definition
from tests.infra.state_machine_graph import placeholders_in, problems_of
from tests.infra.template import defaults_of, load_template, resource

# docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_HISTORY_EVENTS = 25_000
MAX_PAYLOAD_BYTES = 262_144


def machine() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DEFINITIONS / "drain.asl.json").read_text(encoding="utf-8"))
    return loaded


def items(states: dict[str, Any]) -> dict[str, Any]:
    """Return the states inside the Map."""
    inside: dict[str, Any] = states["Launch"]["ItemProcessor"]["States"]
    return inside


def test_every_path_ends_every_task_state_handles_errors_and_every_loop_is_bounded() -> None:
    assert problems_of(machine()) == []


def test_the_template_fills_in_every_placeholder_and_no_other() -> None:
    packaged = definition(DEFINITIONS / "drain.asl.json", Timeouts(60, 600).placeholders).decode()
    substitutions = resource(load_template(), "DrainMachine")["Properties"]["DefinitionSubstitutions"]
    assert placeholders_in(packaged) == set(substitutions)


def test_there_is_one_machine_and_every_failure_has_the_same_name() -> None:
    assert [path.name for path in DEFINITIONS.iterdir()] == ["drain.asl.json"]
    fails = [state for state in machine()["States"].values() if state["Type"] == "Fail"]
    assert {state["Error"] for state in fails} == {"QueueNotDrained"}


def test_the_longest_drain_stays_within_the_history_limit() -> None:
    """The worst case with the default parameters is that every task is launched as often as possible, with every
    retry."""
    defaults = defaults_of(load_template(), "Default")
    one_launch = sum(_events(state) for state in items(machine()["States"]).values())
    launches = 20 + defaults["MaxReceiveCount"]
    assert defaults["MaxConcurrentTasks"] * launches * one_launch < MAX_HISTORY_EVENTS


def test_a_lone_upload_takes_at_most_six_transitions() -> None:
    states = machine()["States"]
    path = ["Count tasks", "Is a task needed?", "Launch", "Drain the queue", "Was it drained?", "Drained"]
    assert [states["Count tasks"]["Next"], states["Is a task needed?"]["Default"]] == path[1:3]
    assert states["Launch"]["ItemProcessor"]["StartAt"] == path[3]
    assert [states["Launch"]["Next"], states["Was it drained?"]["Default"]] == path[4:]


def test_an_item_ends_without_failing_whatever_its_task_does() -> None:
    """If one item failed, Step Functions would stop the tasks of the other items."""
    launch = items(machine()["States"])["Drain the queue"]
    assert {catcher["Next"] for catcher in launch["Catch"]} == {"Launch another?", "Give up"}
    assert launch["Catch"][-1]["ErrorEquals"] == ["States.ALL"]


def test_a_rejected_launch_is_not_mistaken_for_a_task_that_died() -> None:
    """States.TaskFailed matches every error except a timeout.

    docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
    """
    launch = items(machine()["States"])["Drain the queue"]
    refused, died, _ = launch["Catch"]
    assert set(launch["Retry"][0]["ErrorEquals"]) < set(refused["ErrorEquals"])
    assert (refused["Next"], died["ErrorEquals"]) == ("Give up", ["States.TaskFailed", "States.Timeout"])


def test_the_replacement_of_a_failed_task_stays_until_the_failed_tasks_messages_are_visible() -> None:
    caught = items(machine()["States"])["Drain the queue"]["Catch"][1]
    assert caught["ErrorEquals"] == ["States.TaskFailed", "States.Timeout"]
    assert "${VisibilityTimeoutSeconds}, ${RetryDelaySeconds} * ${MaxReceiveCount}" in caught["Output"]["stayUntil"]


def test_the_list_of_batch_notes_is_far_smaller_than_a_payload_may_be() -> None:
    """States.ALL does not match States.DataLimitExceeded, so a longer list would end every scheduled drain."""
    listed = {
        "ChecksumAlgorithm": ["CRC32"],
        "ChecksumType": "FULL_OBJECT",
        "ETag": f'"{"0" * 32}"',
        "Key": f"batches/by-hand-{'0' * 32}/1.json",
        "LastModified": "2026-11-30T12:00:00Z",
        "Size": 10_000,
        "StorageClass": "STANDARD",
    }
    most = machine()["States"]["Look for old batch notes"]["Arguments"].get("MaxKeys", 1_000)  # S3's default
    assert most * len(json.dumps(listed)) < MAX_PAYLOAD_BYTES / 2


def _events(state: dict[str, Any]) -> int:
    """Return the maximum number of history events of one visit to a state. Entering and leaving it are two events, and
    each attempt of a Task state adds four: scheduled, started, submitted and ended."""
    if state["Type"] != "Task":
        return 2
    retries: int = sum(retrier.get("MaxAttempts", 3) for retrier in state["Retry"])
    return 2 + 4 * (1 + retries)


# --- tests of the check itself --------------------------------------------------------------------------------


def _set(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def spoil(states: dict[str, Any]) -> None:
        here: Any = states
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = to

    return spoil


def _drop(state: str, field: str) -> Callable[[dict[str, Any]], None]:
    return lambda states: states[state].pop(field)


def _inside(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    return _set("Launch", "ItemProcessor", "States", *path, to=to)


def _do_not_count(states: dict[str, Any]) -> None:
    items(states)["Drain the queue"]["Catch"][1]["Output"]["launches"] = "{% $states.input.launches %}"


def _do_not_guard(states: dict[str, Any]) -> None:
    items(states)["Launch another?"]["Choices"] = []


def _guard_too_late(states: dict[str, Any]) -> None:
    choices = items(states)["Launch another?"]["Choices"]
    choices.insert(0, {"Condition": "{% true %}", "Next": "Wait a little"})


def _go_round_the_guard(states: dict[str, Any]) -> None:
    items(states)["Drain the queue"]["Catch"][1]["Next"] = "Wait a little"


def _wait_without_a_clock(states: dict[str, Any]) -> None:
    states["Is a task needed?"]["Choices"][1]["Condition"] = "{% $running >= 4 %}"


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a next to nowhere": (
        _set("Count messages", "Next", to="Missing"),
        "'Count messages' leads to 'Missing', which does not exist",
    ),
    "a default to nowhere": (_set("Is a task needed?", "Default", to="Missing"), "which does not exist"),
    "a catch to nowhere": (_set("Count tasks", "Catch", 0, "Next", to="Missing"), "which does not exist"),
    "a catch to nowhere in a map": (
        _inside("Drain the queue", "Catch", 1, "Next", to="Missing"),
        "'Drain the queue' leads to 'Missing', which does not exist",
    ),
    "a state that nothing leads to": (_set("Orphan", to={"Type": "Succeed"}), "'Orphan' is never reached"),
    "a task without timeout": (_drop("Count tasks", "TimeoutSeconds"), "'Count tasks' has no timeout"),
    "a task without retry": (_drop("Count tasks", "Retry"), "'Count tasks' has no retry"),
    "a task without catch": (_drop("Count messages", "Catch"), "'Count messages' does not catch every error"),
    "retries without jitter": (
        _inside("Drain the queue", "Retry", 0, "JitterStrategy", to="NONE"),
        "without JitterStrategy FULL",
    ),
    "an item that fails": (
        _inside("Give up", to={"Type": "Fail", "Error": "E", "Cause": "c"}),
        "'Give up' fails an item, which stops the others",
    ),
    "a choice without default": (_drop("Was it drained?", "Default"), "is a choice without a default"),
    "a failure without a cause": (_drop("Not drained", "Cause"), "'Not drained' fails without saying"),
    "a state that leads nowhere": (_drop("Launch", "Next"), "from 'Launch' no end is reached"),
    "a loop that is not counted": (_do_not_count, "nothing bounds the loop"),
    "a loop without a guard": (_do_not_guard, "nothing bounds the loop"),
    "a guard after a rule that stays in the loop": (_guard_too_late, "nothing bounds the loop"),
    "a loop that bypasses the guard": (_go_round_the_guard, "nothing bounds the loop"),
    "a wait that does not depend on the time": (_wait_without_a_clock, "nothing bounds the loop"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_check_finds(name: str) -> None:
    spoil, expected = BROKEN[name]
    broken = copy.deepcopy(machine())
    spoil(broken["States"])
    assert any(expected in problem for problem in problems_of(broken)), problems_of(broken)


def test_the_check_finds_a_start_that_does_not_exist() -> None:
    broken = machine() | {"StartAt": "Missing"}
    assert "StartAt names 'Missing', which does not exist" in problems_of(broken)
