"""Every expression of the state machines gives its right value, in JSONata's reference engine and in the emulator.

The answers of S3, SQS and ECS have the form in which Step Functions passes them on: PascalCase, no empty lists.
docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html (Transforming data with JSONata in Step Functions)
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
    reason="JSONata's reference engine comes from npm, which is not here; with it, make infra sets it up",
)

FILLED = {
    "PublishedBucket": "published",
    "QueueUrl": "https://queue",
    "DeadLetterQueueUrl": "https://dead",
    "TaskLogGroup": "/sluice/sluice/task",
    "SubnetIds": "subnet-1,subnet-2",
    "SecurityGroupIds": "sg-1",
    "MaxConcurrentTasks": "4",
    "MaxAttempts": "4",
    "MaxLooks": "200",
    "RetryWaitSeconds": "60",
    "LookAgainSeconds": "30",
    "LookAgainMaxSeconds": "600",
}
RUN = "0123456789abcdef" * 2
KEY = f"receipts/{RUN}.json"
EXECUTION = {"Execution": {"Id": "arn:aws:states:eu-central-1:1:execution:sluice-process-upload:x"}}
REFUSED = {"Error": "S3.S3Exception", "Cause": "Access Denied " + "x" * 2_000}
PROBLEM = ("S3.S3Exception: " + "Access Denied " + "x" * 2_000)[: len("S3.S3Exception: ") + 1_000]
KILLED = {
    "Error": "States.TaskFailed",
    "Cause": '{"Attachments":[{"Details":[{"Name":"x","Value":"y"}]}],"Containers":[{"ExitCode":137,"Reason":'
    '"OutOfMemoryError: container killed","TaskArn":"arn:task"}],"StoppedReason":"Essential container in task exited"}',
}


@dataclass(frozen=True)
class Case:
    """One visit of a state, and the values that its expressions have then.

    Attributes:
        values: by the path of the expression in the state; a range for a value with a random part.
    """

    machine: str
    state: str
    values: dict[str, Any]
    variables: dict[str, Any] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)


def _upload(state: str, values: dict[str, Any], variables: dict[str, Any] | None = None, **states: Any) -> Case:
    known = {"runId": RUN, "receiptKey": KEY, "attempt": 0, "looks": 1, "launches": 0}
    return Case("process_upload", state, values, known | (variables or {}), {"context": EXECUTION, **states})


def _sweep(state: str, values: dict[str, Any], variables: dict[str, Any] | None = None, **states: Any) -> Case:
    return Case("sweep", state, values, variables or {}, {"context": EXECUTION, **states})


def _head(**metadata: str) -> dict[str, Any]:
    return {"Metadata": metadata, "ContentLength": 10}


def _turn(state: str, choice: int, value: bool, **variables: Any) -> Case:
    return _upload(state, {f"Choices.{choice}.Condition": value}, variables)


NOTHING_YET = {"looks": 1, "launches": 0, "taskEnded": False, "refused": False, "taskRan": False}
NETWORK = "Arguments.NetworkConfiguration.AwsvpcConfiguration"
ENVIRONMENT = "Arguments.Overrides.ContainerOverrides.0.Environment"
CASES = [
    *(
        _upload("Check input", {"Choices.0.Condition": right}, input=given)
        for right, given in (
            (True, {"run_id": RUN, "attempt": 0}),
            (False, {"run_id": RUN.upper(), "attempt": 0}),
            (False, {"run_id": RUN + "0", "attempt": 0}),
            (False, {"run_id": RUN, "attempt": "0"}),
            (False, {"run_id": 7, "attempt": 0}),
            (False, {"attempt": 0}),
            (False, {}),
        )
    ),
    _upload(
        "Remember",
        {"Assign.runId": RUN, "Assign.attempt": 3, "Assign.receiptKey": KEY},
        input={"run_id": RUN, "attempt": 3},
    ),
    _upload("Look for receipt", {"Arguments.Prefix": KEY, "Catch.0.Assign.problem": PROBLEM}, errorOutput=REFUSED),
    *(
        _upload("Look for receipt", {"Assign.found": found, "Assign.looks": 2}, result=listing)
        for found, listing in (
            (True, {"Contents": [{"Key": KEY, "Size": 1}], "KeyCount": 1}),
            (False, {"Contents": [{"Key": KEY + ".old", "Size": 1}], "KeyCount": 1}),
            (False, {"KeyCount": 0, "IsTruncated": False}),
        )
    ),
    *(_turn("Is there a receipt?", 0, found, found=found) for found in (True, False)),
    _upload("Read receipt", {"Arguments.Key": KEY, "Catch.0.Assign.problem": PROBLEM}, errorOutput=REFUSED),
    *(
        _upload(
            "Read receipt",
            {
                "Assign.verdict": verdict,
                "Assign.reason": reason,
                "Output.run_id": RUN,
                "Output.attempt": int(metadata["attempt"]),
                "Output.status": metadata["status"],
                "Output.receipt": f"s3://published/{KEY}",
            },
            {"attempt": 1},
            result=_head(**metadata),
        )
        for verdict, reason, metadata in (
            ("published", "The receipt gives no reason.", {"attempt": "1", "status": "published"}),
            (
                "rejected",
                "größer als 5 %",
                {"attempt": "2", "status": "rejected", "reason": "gr%C3%B6%C3%9Fer%20als%205%20%25"},
            ),
            ("rejected", "The receipt gives no reason.", {"attempt": "1", "status": "rejected"}),
            ("of an earlier attempt", "The receipt gives no reason.", {"attempt": "0", "status": "published"}),
        )
    ),
    *(
        _turn("What does it say?", choice, verdict == one, verdict=verdict)
        for verdict in ("published", "rejected", "of an earlier attempt", "other")
        for choice, one in enumerate(("published", "rejected", "of an earlier attempt"))
    ),
    _upload("Data rejected", {"Cause": "no rows"}, {"reason": "no rows"}),
    _upload(
        "Receipt malformed",
        {
            "Cause": f"The receipt s3://published/{KEY} has the status odd, which this state machine does not know. "
            "Deploy the stack and the image of the same release."
        },
        {"verdict": "odd"},
    ),
    _upload(
        "Receipts unreadable",
        {
            "Cause": f"Whether s3://published/{KEY} exists, and its status, could not be determined (x). Check that "
            "the state machine role may list and read receipts/ in that bucket, then start the run again."
        },
        {"problem": "x"},
    ),
    *(_turn("No receipt yet", 0, looks >= 200, **NOTHING_YET | {"looks": looks}) for looks in (199, 200)),
    *(_turn("No receipt yet", 1, ended, **NOTHING_YET | {"taskEnded": ended}) for ended in (True, False)),
    _turn("No receipt yet", 2, False, **NOTHING_YET),
    _turn("No receipt yet", 2, True, **NOTHING_YET | {"refused": True}),
    _turn("No receipt yet", 2, True, **NOTHING_YET | {"launches": 4}),
    _turn("No receipt yet", 2, False, **NOTHING_YET | {"launches": 4, "taskRan": True}),
    *(_turn("No receipt yet", 3, launches >= 4, **NOTHING_YET | {"launches": launches}) for launches in (3, 4)),
    *(
        _upload("Wait before next attempt", {"Seconds": seconds}, {"launches": launches})
        for launches, seconds in ((1, 60), (2, 120), (4, 480), (20, 3_600))
    ),
    _upload("Count draining tasks", {"Assign.draining": 2}, result={"TaskArns": ["arn:1", "arn:2"]}),
    _upload("Count draining tasks", {"Assign.draining": 0}, result={"TaskArns": []}),
    _upload("Count draining tasks", {"Assign.draining": 0}, result={}),
    _upload(
        "Count draining tasks",
        {"Catch.0.Assign.problem": PROBLEM, "Catch.1.Assign.problem": PROBLEM},
        errorOutput=REFUSED,
    ),
    *(_turn("Enough tasks?", 0, draining >= 4, draining=draining) for draining in (0, 3, 4, 5)),
    *(
        _upload("Wait and look again", {"Seconds": seconds}, {"looks": looks})
        for looks, seconds in ((1, range(15, 32)), (5, range(30, 64)), (50, range(300, 601)), (200, range(300, 601)))
    ),
    _upload(
        "Drain the queue",
        {
            f"{NETWORK}.Subnets": ["subnet-1", "subnet-2"],
            f"{NETWORK}.SecurityGroups": ["sg-1"],
            f"{ENVIRONMENT}.0.Value": RUN,
            f"{ENVIRONMENT}.1.Value": EXECUTION["Execution"]["Id"],
            "Assign.launches": 3,
            "Catch.0.Assign.problem": PROBLEM,
            "Catch.1.Assign.launches": 3,
            "Catch.1.Assign.problem": PROBLEM,
            "Catch.2.Assign.launches": 3,
            "Catch.2.Assign.problem": PROBLEM,
        },
        {"launches": 2},
        errorOutput=REFUSED,
    ),
    _upload(
        "Drain the queue",
        {
            "Catch.2.Assign.problem": 'States.TaskFailed: "ExitCode":137, "Reason":"OutOfMemoryError: container killed"'
            ', "TaskArn":"arn:task", "StoppedReason":"Essential container in task exited"'
        },
        errorOutput=KILLED,
    ),
    _upload(
        "Task not launched",
        {
            "Cause": "No task could be launched for this upload (x). The message is still in the queue https://queue: "
            "once the cause is removed, start the run again or let the sweep pick the message up."
        },
        {"problem": "x"},
    ),
    _upload(
        "No receipt",
        {
            "Cause": f"After 4 task launches and 9 looks there is no receipt s3://published/{KEY} (last: x). Look for "
            "the message in the queue https://queue and in the dead-letter queue https://dead, and for the cause in "
            "the log group /sluice/sluice/task; then redrive the message or start the run again."
        },
        {"launches": 4, "looks": 9, "problem": "x"},
    ),
    _sweep(
        "Count waiting messages",
        {"Assign.waiting": 7, "Catch.0.Assign.problem": PROBLEM},
        result={"Attributes": {"ApproximateNumberOfMessages": "7"}},
        errorOutput=REFUSED,
    ),
    *(_sweep("Any waiting?", {"Choices.0.Condition": waiting > 0}, {"waiting": waiting}) for waiting in (0, 1)),
    _sweep(
        "Count draining tasks",
        {"Assign.draining": 1, "Catch.0.Assign.problem": PROBLEM},
        result={"TaskArns": ["arn:1"]},
        errorOutput=REFUSED,
    ),
    *(_sweep("Anyone draining?", {"Choices.0.Condition": one > 0}, {"draining": one}) for one in (0, 1)),
    _sweep(
        "Start a task",
        {
            f"{NETWORK}.Subnets": ["subnet-1", "subnet-2"],
            f"{NETWORK}.SecurityGroups": ["sg-1"],
            f"{ENVIRONMENT}.0.Value": EXECUTION["Execution"]["Id"],
            "Assign.problem": "ECS could not place the task: RESOURCE:CPU",
            "Assign.failures": 1,
            "Catch.0.Assign.problem": PROBLEM,
        },
        result={"Failures": [{"Reason": "RESOURCE:CPU"}], "Tasks": []},
        errorOutput=REFUSED,
    ),
    _sweep(
        "Start a task",
        {"Assign.problem": "ECS could not place the task: ", "Assign.failures": 0},
        result={"Failures": [], "Tasks": [{"TaskArn": "arn:1"}]},
    ),
    *(_sweep("Was it started?", {"Choices.0.Condition": one > 0}, {"failures": one}) for one in (0, 1)),
    _sweep(
        "Sweep failed",
        {
            "Cause": "Messages may be waiting in https://queue with no task to drain them (x). "
            "The next sweep tries again."
        },
        {"problem": "x"},
    ),
]


def expressions(machine: str) -> dict[tuple[str, str], str]:
    """Return the expressions of a machine by state and path, with the placeholders filled in."""
    text = (DEFINITIONS / f"{machine}.asl.json").read_text(encoding="utf-8")
    filled = re.sub(r"\$\{(\w+)\}", lambda found: FILLED.get(found[1], "1"), text)
    states = json.loads(filled)["States"]
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
    """One expression with its bindings, and its right value."""

    where: str
    expression: str
    bindings: dict[str, Any]
    right: Any


def questions() -> list[Question]:
    """Return every expression of every case."""
    known = {machine: expressions(machine) for machine in ("process_upload", "sweep")}
    return [
        Question(
            f"{case.machine}: {case.state}: {path}",
            known[case.machine][case.state, path],
            {**case.variables, "states": case.states},
            right,
        )
        for case in CASES
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
def test_the_reference_engine_gives_every_expression_its_right_value() -> None:
    assert wrong_answers(REFERENCE) == []


@pytest.mark.cloud
def test_the_emulator_gives_every_expression_its_right_value() -> None:
    assert wrong_answers(EMULATOR) == []


@pytest.mark.parametrize("machine", ["process_upload", "sweep"])
def test_every_expression_is_evaluated(machine: str) -> None:
    evaluated = {(case.state, path) for case in CASES if case.machine == machine for path in case.values}
    assert evaluated == set(expressions(machine))
