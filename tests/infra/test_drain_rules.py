"""Tests that, with the decisions of the real Lambda, state machine and task, no interleaving strands a message. If any
one of the rules is removed, some interleaving does."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from deployment import PROJECT_ROOT
from deployment.aws.packaging import DEFINITIONS
from flows.pipeline.leaving import Poll, may_leave
from lambda_trigger.dispatch import Dispatcher
from lambda_trigger.message import UploadMessage
from tests.infra.drain_model import COVERED, LAUNCH, WAIT, Rules, explore

pytestmark = pytest.mark.cloud  # because the tests use the AWS emulator's JSONata engine

WINDOW, SETTLE, VISIBILITY = 60, 30, 120
FILLED = {
    "MaxConcurrentTasks": "1",
    "WindowSeconds": str(WINDOW),
    "SettleSeconds": str(SETTLE),
    "VisibilityTimeoutSeconds": str(VISIBILITY),
    "RetryDelaySeconds": "30",
    "MaxReceiveCount": "5",
}
Change = Callable[[dict[str, Any]], None]


def evaluate(questions: list[tuple[str, Mapping[str, Any]]]) -> list[Any]:
    """Evaluate JSONata expressions with their variables, as the state machine does."""
    asked = [
        {"expression": re.sub(r"^\{%|%\}$", "", expression).strip(), "bindings": bindings}
        for expression, bindings in questions
    ]
    done = subprocess.run(
        [str(PROJECT_ROOT / ".venv-cloud" / "bin" / "python"), "-m", "tests.emulator.jsonata_engine"],
        input=json.dumps(asked),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [answer["value"] for answer in json.loads(done.stdout)]


def steps_of_the_lambda() -> tuple[str, ...]:
    """Return the steps that the real dispatcher takes, in order."""
    done: list[str] = []

    class Calls:
        def send_message(self, **_: Any) -> dict[str, str]:
            done.append("send")
            return {"MessageId": "1"}

        def list_objects_v2(self, **_: Any) -> dict[str, int]:
            return {"KeyCount": 0}

        def start_execution(self, *, name: str, **_: Any) -> dict[str, str]:
            assert name == "upload-7"
            done.append("start")
            return {"executionArn": "arn"}

    def clock() -> float:
        done.append("clock")
        return 7.5 * WINDOW

    upload = UploadMessage(bucket="b", key="incoming/k", version_id="v", etag="e", size_bytes=1)
    Dispatcher(Calls(), Calls(), Calls(), "queue", "machine", "published", WINDOW, clock).dispatch(upload)
    return tuple(done)


def rules_of_the_parts(change: Change = lambda _: None) -> Rules:
    """Return the rules of the real Lambda, state machine and task, after a change to the state machine's definition."""
    text = (DEFINITIONS / "drain.asl.json").read_text(encoding="utf-8")
    states = json.loads(re.sub(r"\$\{(\w+)\}", lambda found: FILLED.get(found[1], "1"), text))["States"]
    change(states)
    now = int(time.time())
    before, after = now + 5, now - SETTLE - 5  # ends of a window that ends soon, and of one that has settled
    launch = states["Launch"]["ItemProcessor"]["States"]["Drain the queue"]
    dead = {"input": {"launches": 0, "stayUntil": 0}, "errorOutput": {"Error": "States.TaskFailed", "Cause": ""}}
    caught = launch["Catch"][1]
    choices = states["Is a task needed?"]["Choices"]
    cases = [(running, settled) for running in (0, 1, 2) for settled in (False, True)]
    (item,), stay_soon, stay_late, wait, *answers = evaluate(
        [
            (states["Launch"]["Items"], {"missing": 1, "source": "upload", "windowEnd": before}),
            (caught["Output"]["stayUntil"], {"windowEnd": now + 1_000, "states": dead}),
            (caught["Output"]["stayUntil"], {"windowEnd": after, "states": dead}),
            (states["Wait for the window to end"]["Seconds"], {"windowEnd": before}),
        ]
        + [
            (
                choice["Condition"],
                {"source": "upload", "running": running, "windowEnd": after if settled else before},
            )
            for running, settled in cases
            for choice in choices
        ]
    )
    decisions: dict[tuple[int, bool], str] = {}
    for number, case in enumerate(cases):
        mine = answers[number * len(choices) : (number + 1) * len(choices)]
        taken = (choice["Next"] for choice, answer in zip(choices, mine, strict=True) if answer)
        decisions[case] = next(taken, states["Is a task needed?"]["Default"])
    assert set(decisions.values()) <= {LAUNCH, WAIT, COVERED}
    return Rules(
        upload_steps=steps_of_the_lambda(),
        decide=lambda running, settled: decisions[min(running, 2), settled],
        waits_until_settled=now + wait >= before + SETTLE - 1,
        stays_for_window=item["stayUntil"] > before and stay_soon > now + 1_000,
        stays_for_hidden=stay_late >= now + VISIBILITY,
        relaunches=caught["Next"] == "Launch another?",
        may_leave=lambda poll, stay_until: may_leave(poll, stay_until=stay_until),
    )


@pytest.fixture(scope="module")
def rules() -> Rules:
    return rules_of_the_parts()


@pytest.mark.parametrize("kills", [0, 1])
def test_no_interleaving_strands_a_message(rules: Rules, kills: int) -> None:
    states, stranding = explore(rules, kills=kills)
    assert stranding == []
    assert states > 1_000


def test_no_interleaving_with_two_kills_strands_a_message(rules: Rules) -> None:
    assert explore(rules, kills=2, uploads=1)[1] == []


# --- each rule is needed ---------------------------------------------------------------------------------------------


def _rely_on_any_task(states: dict[str, Any]) -> None:
    states["Is a task needed?"]["Choices"][1]["Next"] = COVERED


def _look_at_once(states: dict[str, Any]) -> None:
    states["Wait for the window to end"]["Seconds"] = "{% 1 %}"
    states["Is a task needed?"]["Choices"][1]["Condition"] = "{% $running >= 1 and $millis() < $windowEnd * 1000 %}"


def _stay_for_nothing(states: dict[str, Any]) -> None:
    states["Launch"]["Items"] = "{% [[1..$missing].{'launches': 0, 'stayUntil': 0}] %}"


def _fail_with_the_task(states: dict[str, Any]) -> None:
    states["Launch"]["ItemProcessor"]["States"]["Drain the queue"]["Catch"][1]["Next"] = "Give up"


def _stay_for_the_window_only(states: dict[str, Any]) -> None:
    caught = states["Launch"]["ItemProcessor"]["States"]["Drain the queue"]["Catch"][1]
    caught["Output"]["stayUntil"] = "{% $windowEnd + 5 %}"


WITHOUT: dict[str, tuple[Change, int]] = {
    "at the maximum it relies on tasks that are already running": (_rely_on_any_task, 0),
    "at the maximum it does not wait until the window has settled": (_look_at_once, 0),
    "a task does not stay until its window is over": (_stay_for_nothing, 0),
    "a killed task has no successor": (_fail_with_the_task, 1),
    "the successor does not stay until the message is visible": (_stay_for_the_window_only, 1),
}


@pytest.mark.parametrize("rule", WITHOUT)
def test_without_this_rule_of_the_state_machine_a_message_is_stranded(rule: str) -> None:
    change, kills = WITHOUT[rule]
    assert explore(rules_of_the_parts(change), kills=kills)[1]


def test_a_lambda_that_reads_the_clock_before_it_sends_strands_a_message(rules: Rules) -> None:
    assert rules.upload_steps == ("send", "clock", "start")
    assert explore(replace(rules, upload_steps=("clock", "send", "start")))[1]


def test_a_task_that_leaves_after_any_empty_receive_strands_a_message(rules: Rules) -> None:
    def leave_at_once(poll: Poll, _: float) -> bool:
        return poll.messages == 0

    assert explore(replace(rules, may_leave=leave_at_once))[1]
