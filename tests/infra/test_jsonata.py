"""Tests that every expression of the state machine has the expected value in JSONata's reference engine and in the AWS
emulator.

The responses of S3, SQS and ECS have the form in which Step Functions passes them on: PascalCase and no empty lists.
docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html (Transforming data with JSONata in Step Functions)
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deployment import PROJECT_ROOT
from deployment.aws.packaging import DEFINITIONS

NODE = PROJECT_ROOT / "tests" / "linters" / "node"
REFERENCE = [shutil.which("node") or "node", str(NODE / "evaluate.mjs")]
EMULATOR = [str(PROJECT_ROOT / ".venv-cloud" / "bin" / "python"), "-m", "tests.emulator.jsonata_engine"]
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules" / "jsonata").exists(),
    reason="JSONata's reference engine is not installed: make infra installs it if npm is available",
)

FILLED = {
    "PublishedBucket": "published",
    "QueueUrl": "https://queue",
    "TaskLogGroup": "/sluice/sluice/task",
    "SubnetIds": "subnet-1,subnet-2",
    "SecurityGroupIds": "sg-1",
    "MaxConcurrentTasks": "4",
    "MessagesPerTask": "100",
    "WindowSeconds": "60",
    "SettleSeconds": "30",
    "VisibilityTimeoutSeconds": "120",
    "RetryDelaySeconds": "30",
    "MaxReceiveCount": "5",
}
WINDOW = 29_932_285
REFUSED = {"Error": "S3.S3Exception", "Cause": "Access Denied " + "x" * 2_000}
PROBLEM = ("S3.S3Exception: " + "Access Denied " + "x" * 2_000)[: len("S3.S3Exception: ") + 1_000]
KILLED = {
    "Error": "States.TaskFailed",
    "Cause": '{"Attachments":[{"Details":[{"Name":"x","Value":"y"}]}],"Containers":[{"ExitCode":137,"Reason":'
    '"OutOfMemoryError: container killed","TaskArn":"arn:task"}],"StoppedReason":"Essential container in task exited"}',
}


@dataclass(frozen=True)
class Case:
    """One visit to a state, with the expected values of the state's expressions.

    Attributes:
        values: the expected values, by the path of the expression in the state. A value that is random or depends on
            the time is given as a range.
    """

    state: str
    values: dict[str, Any]
    variables: dict[str, Any] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)


def _execution(source: str | None, name: str, **given: object) -> dict[str, Any]:
    return {
        "Execution": {
            "Id": f"arn:aws:states:eu-central-1:1:execution:sluice-drain:{name}",
            "Name": name,
            "Input": given if source is None else {"source": source, **given},
        }
    }


UPLOAD, BACKLOG = _execution("upload", f"upload-{WINDOW}"), _execution("backlog", "backlog-59864571", tasks=6)
SCHEDULE = _execution("schedule", "0f6c")
NETWORK = "Arguments.NetworkConfiguration.AwsvpcConfiguration"
ENVIRONMENT = "Arguments.Overrides.ContainerOverrides.0.Environment"


def _count(context: dict[str, Any], tasks: int, **right: object) -> Case:
    """Return a case in which tasks are counted. It covers both a list from ECS and an error."""
    caught = {name: value for name, value in right.items() if name in ("source", "windowEnd")}
    return Case(
        "Count tasks",
        {
            **{f"Assign.{name}": value for name, value in right.items()},
            "Assign.running": tasks,
            **{f"Catch.0.Assign.{name}": value for name, value in caught.items()},
            "Catch.0.Assign.problem": PROBLEM,
        },
        states={
            "context": context,
            "result": {"TaskArns": [f"arn:{number}" for number in range(tasks)]},
            "errorOutput": REFUSED,
        },
    )


def _need(choice: int, right: bool, **variables: object) -> Case:
    return Case("Is a task needed?", {f"Choices.{choice}.Condition": right}, variables)


def _ended(cause: str, right: str, stay: int | range, window_end: int = 0, launches: int = 0) -> Case:
    """Return a case in which a task ended with an error."""
    return Case(
        "Drain the queue",
        {
            "Catch.1.Output.launches": launches + 1,
            "Catch.1.Output.stayUntil": stay,
            "Catch.1.Output.problem": right,
        },
        {"windowEnd": window_end},
        {
            "context": UPLOAD,
            "input": {"launches": launches, "stayUntil": window_end + 5},
            "errorOutput": {"Error": "States.TaskFailed", "Cause": cause},
        },
    )


def _note(now: int, seconds_ago: int) -> dict[str, Any]:
    when = datetime.fromtimestamp(now - seconds_ago, UTC).isoformat().replace("+00:00", "Z")
    return {"Key": f"batches/task/{seconds_ago}.json", "LastModified": when}


def cases() -> list[Case]:
    """Return the cases, whose times are relative to now. They are not created on import, because the engines read the
    clock, and a long test run imports this module many minutes before it runs the tests."""
    now = int(time.time())
    past, future = now - 1_000, now + 1_000  # the ends of two windows
    after_a_rest = range(now + 155, now + 300)
    return [
        _count(UPLOAD, 0, source="upload", windowEnd=(WINDOW + 1) * 60, missing=1),
        _count(UPLOAD, 4, source="upload", windowEnd=(WINDOW + 1) * 60, missing=1),
        _count(_execution("upload", "upload-7-0123abcd"), 0, source="upload", windowEnd=480, missing=1),
        _count(_execution("upload", "upload"), 0, source="upload", windowEnd=0, missing=1),
        _count(BACKLOG, 0, source="backlog", windowEnd=0, missing=4),
        _count(BACKLOG, 3, source="backlog", windowEnd=0, missing=1),
        _count(BACKLOG, 6, source="backlog", windowEnd=0, missing=0),
        _count(_execution("backlog", "backlog-1", tasks=2), 1, source="backlog", windowEnd=0, missing=1),
        _count(SCHEDULE, 1, source="schedule", windowEnd=0, missing=0),
        _count(_execution(None, "by-hand"), 1, source="schedule", windowEnd=0, missing=0),
        *(
            Case("Is a task needed for certain?", {"Choices.0.Condition": source == "upload"}, {"source": source})
            for source in ("upload", "backlog", "schedule")
        ),
        *(
            _need(0, source not in ("upload", "backlog"), source=source, running=0, windowEnd=0)
            for source in ("upload", "backlog", "schedule", "other")
        ),
        _need(1, True, source="upload", running=4, windowEnd=future),
        _need(1, True, source="upload", running=5, windowEnd=now - 1),
        _need(1, False, source="upload", running=3, windowEnd=future),
        _need(1, False, source="upload", running=4, windowEnd=past),
        _need(1, False, source="backlog", running=4, windowEnd=0),
        _need(2, True, source="upload", running=1, windowEnd=past),
        _need(2, False, source="upload", running=0, windowEnd=past),
        _need(2, False, source="upload", running=4, windowEnd=future),
        _need(2, False, source="backlog", running=4, windowEnd=0),
        Case("Wait for the window to end", {"Seconds": range(900, 1_031)}, {"windowEnd": future}),
        Case("Wait for the window to end", {"Seconds": 1}, {"windowEnd": past}),
        *(
            Case(
                "Count messages",
                {"Assign.missing": missing, "Catch.0.Assign.problem": PROBLEM},
                {"running": running},
                {"result": {"Attributes": {"ApproximateNumberOfMessages": waiting}}, "errorOutput": REFUSED},
            )
            for waiting, running, missing in (
                ("0", 0, 0),
                ("1", 0, 1),
                ("100", 0, 1),
                ("101", 0, 2),
                ("101", 1, 1),
                ("9999", 0, 4),
                ("9999", 3, 1),
                ("9999", 5, 0),
            )
        ),
        *(
            Case(
                "Look for old batch notes",
                {"Assign.missing": missing, "Catch.0.Assign.problem": PROBLEM},
                {"running": running, "missing": before},
                {"result": listing, "errorOutput": REFUSED},
            )
            for listing, running, before, missing in (
                ({"KeyCount": 0}, 0, 0, 0),
                ({"Contents": [_note(now, 10)]}, 0, 0, 0),
                ({"Contents": [_note(now, 10), _note(now, 200)]}, 0, 0, 1),
                ({"Contents": [_note(now, 200)]}, 1, 0, 0),
                ({"Contents": [_note(now, 200), _note(now, 300)]}, 0, 3, 3),
            )
        ),
        *(
            Case("Is there anything to do?", {"Choices.0.Condition": missing > 0}, {"missing": missing})
            for missing in (0, 1)
        ),
        *(
            Case(
                "Look for a pause",
                {"Assign.paused": paused, "Catch.0.Assign.problem": PROBLEM},
                states={"result": listing, "errorOutput": REFUSED},
            )
            for listing, paused in (
                ({"Contents": [{"Key": "control/paused.json"}]}, True),
                ({"KeyCount": 0}, False),
            )
        ),
        *(Case("Is it paused?", {"Choices.0.Condition": paused}, {"paused": paused}) for paused in (True, False)),
        Case(
            "Not counted",
            {
                "Cause": "It could not be determined how many tasks https://queue needs (x). Nothing was launched; the "
                "next run of the schedule tries again."
            },
            {"problem": "x"},
        ),
        Case("Launch", {"Items": []}, {"missing": 0, "source": "schedule", "windowEnd": 0}),
        Case(
            "Launch",
            {"Items": [{"launches": 0, "stayUntil": 485}]},
            {"missing": 1, "source": "upload", "windowEnd": 480},
        ),
        Case(
            "Launch",
            {"Items": [{"launches": 0, "stayUntil": 0}] * 3},
            {"missing": 3, "source": "backlog", "windowEnd": 0},
        ),
        Case(
            "Drain the queue",
            {
                f"{NETWORK}.Subnets": ["subnet-1", "subnet-2"],
                f"{NETWORK}.SecurityGroups": ["sg-1"],
                f"{ENVIRONMENT}.0.Value": "1700000005",
                f"{ENVIRONMENT}.1.Value": UPLOAD["Execution"]["Id"],
                "Catch.0.Output.problem": PROBLEM,
                "Catch.2.Output.problem": PROBLEM,
            },
            states={
                "context": UPLOAD,
                "input": {"launches": 0, "stayUntil": 1_700_000_005},
                "errorOutput": REFUSED,
            },
        ),
        _ended(
            KILLED["Cause"],
            'States.TaskFailed: "ExitCode":137, "Reason":"OutOfMemoryError: container killed", "TaskArn":"arn:task", '
            '"StoppedReason":"Essential container in task exited"',
            after_a_rest,
        ),
        _ended(
            '{"Containers":[{"ExitCode": 75}]}', 'States.TaskFailed: "ExitCode": 75', future + 5, future, launches=3
        ),
        _ended("nothing that is known", "States.TaskFailed: nothing that is known", after_a_rest, past),
        *(
            Case("Launch another?", {"Choices.0.Condition": launches >= 25}, states={"input": {"launches": launches}})
            for launches in (1, 24, 25)
        ),
        *(
            Case("Wait a little", {"Seconds": seconds}, states={"input": {"launches": launches}})
            for launches, seconds in ((1, range(2, 5)), (3, range(8, 17)), (20, range(30, 61)))
        ),
        *(
            Case("Was it drained?", {"Choices.0.Condition": failed}, states={"input": outputs})
            for outputs, failed in (
                ([], False),
                ([{}], False),
                ([{}, {}], False),
                ([{"problem": "x"}], True),
                ([{}, {"launches": 25, "problem": "x"}], True),
            )
        ),
        Case(
            "Not drained",
            {
                "Cause": "Uploads may wait in https://queue with no task to drain it (x; y). Nothing is lost: the next "
                "upload or the next run of the schedule tries again. Look for the cause in the log group "
                "/sluice/sluice/task."
            },
            states={"input": [{"problem": "x"}, {}, {"problem": "y"}, {"problem": "x"}]},
        ),
    ]


def expressions() -> dict[tuple[str, str], str]:
    """Return the expressions by state and path, with the placeholders filled in, including those of the states inside
    the Map."""
    text = (DEFINITIONS / "drain.asl.json").read_text(encoding="utf-8")
    filled = re.sub(r"\$\{(\w+)\}", lambda found: FILLED.get(found[1], "1"), text)
    states = json.loads(filled)["States"]
    states |= states["Launch"].pop("ItemProcessor")["States"]
    return {(name, path): one for name, state in states.items() for path, one in _walk(state, "")}


def _walk(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value.startswith("{%"):
        yield path[1:], value.removeprefix("{%").removesuffix("%}").strip()
    elif isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in pairs:
            yield from _walk(one, f"{path}.{name}")


@dataclass(frozen=True)
class Question:
    """One expression with its bindings and its expected value."""

    where: str
    expression: str
    bindings: dict[str, Any]
    right: Any


def questions() -> list[Question]:
    """Return a question for every expression of every case."""
    known = expressions()
    return [
        Question(
            f"{case.state}: {path}",
            known[case.state, path],
            {**case.variables, "states": case.states},
            right,
        )
        for case in cases()
        for path, right in case.values.items()
    ]


def wrong_answers(engine: Sequence[str | Path]) -> list[tuple[str, Any, Any]]:
    asked = questions()
    given = json.dumps([{"expression": one.expression, "bindings": one.bindings} for one in asked])
    done = subprocess.run(engine, input=given, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = [one.get("value", one.get("error")) for one in json.loads(done.stdout)]
    return [
        (one.where, answer, one.right)
        for one, answer in zip(asked, answers, strict=True)
        if not (answer in one.right if isinstance(one.right, range) else answer == one.right)
    ]


@needs_node
def test_the_reference_engine_gives_every_expression_its_expected_value() -> None:
    assert wrong_answers(REFERENCE) == []


@pytest.mark.cloud
def test_the_emulator_gives_every_expression_its_expected_value() -> None:
    assert wrong_answers(EMULATOR) == []


def test_every_expression_is_evaluated() -> None:
    evaluated = {(case.state, path) for case in cases() for path in case.values}
    assert evaluated == set(expressions())
