"""A crash is explained from ECS's description of the task that crashed and from the end of its log."""

from __future__ import annotations

import re
import time
from typing import Any

import boto3
import pytest
from moto import mock_aws

from flows.observability.crashes import (
    EXPLAINED,
    Crash,
    _lines_in_cloudwatch,
    _log_in_stack,
    _log_of,
    cause_of,
    infrastructure_of,
    task_of,
)
from flows.pipeline.job import TaskLog

TASK = "arn:aws:ecs:eu-central-1:123456789012:task/sluice-Cluster/0123456789abcdef"


def stopped(code: int | None = None, *, stop_code: str = "EssentialContainerExited", **said: str) -> dict[str, Any]:
    container = {"name": "drain", "exitCode": code, "reason": said.get("reason")}
    return {
        "lastStatus": "STOPPED",
        "stopCode": stop_code,
        "stoppedReason": said.get("stopped"),
        "containers": [container],
    }


@pytest.mark.parametrize(
    ("task", "cause"),
    [
        (stopped(137, reason="OutOfMemoryError: Container killed due to memory usage"), "out of memory"),
        (
            stopped(143, stop_code="SpotInterruption", stopped="Your Spot Task was interrupted."),
            "AWS reclaimed the Fargate Spot capacity",
        ),
        (
            stopped(143, stop_code="TerminationNotice", stopped="a termination notice"),
            "AWS reclaimed the Fargate Spot capacity",
        ),
        (stopped(143, stop_code="UserInitiated", stopped="Task stopped by user"), "the task was stopped"),
        (stopped(137, stopped="Essential container in task exited"), "killed, perhaps out of memory"),
        (stopped(2), "exit code 2"),
        (stopped(0), ""),
        ({}, ""),
    ],
)
def test_the_cause_is_a_few_words(task: dict[str, Any], cause: str) -> None:
    assert cause_of(task) == cause


def test_a_flow_run_names_its_task_in_the_form_of_prefects_own_worker() -> None:
    assert infrastructure_of(TASK) == f"sluice-Cluster::{TASK}"
    assert task_of(infrastructure_of(TASK)) == TASK


@pytest.mark.parametrize("infrastructure_pid", [None, "", "a-host:4711"])
def test_a_process_is_not_a_task(infrastructure_pid: str | None) -> None:
    assert task_of(infrastructure_pid) is None


def test_the_state_keeps_its_message_and_adds_the_reason_and_the_last_log_lines() -> None:
    crash = Crash("out of memory", "ECS reported it.", ("first", "last `line`"))
    assert crash.message("No heartbeat.") == (
        "No heartbeat.\nECS reported it.\nIts last log lines:\nfirst\nlast `line`"
    )
    assert crash.explanation("No heartbeat.").startswith(f"{EXPLAINED}out of memory.\nNo heartbeat.")
    assert "```\nfirst\nlast 'line'\n```" in crash.markdown(""), "a line of the log cannot end the block"


def test_an_earlier_message_cannot_become_markup() -> None:
    """Markdown in the message is escaped, because it may quote log lines, and these may contain the key of a file."""
    shown = Crash("", "also [b](https://evil)").markdown("Its last log lines: [a](https://evil)")
    assert not re.search(r"(?<!\\)[\[\]]", shown)


def test_a_crash_about_which_nothing_is_known_was_killed_and_logged_nothing() -> None:
    assert Crash().summary == "killed"
    assert Crash().message("") == "It logged nothing."


def test_the_last_lines_come_from_the_tasks_log_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last log lines are read from the log group in the task definition, and formatted for people."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        logs = boto3.client("logs")
        logs.create_log_group(logGroupName="/sluice/drain")
        logs.create_log_stream(logGroupName="/sluice/drain", logStreamName="drain/drain/0123456789abcdef")
        said = [
            '{"time": "2026-01-01T10:11:12.345", "level": "INFO", "event": "done", "stage": "fetch", "seconds": 0.1}',
            "Killed",
        ]
        now = int(time.time() * 1000)
        events = [{"timestamp": now + place, "message": line} for place, line in enumerate(said)]
        logs.put_log_events(
            logGroupName="/sluice/drain",
            logStreamName="drain/drain/0123456789abcdef",
            logEvents=events,  # type: ignore[arg-type]
        )
        options = {"awslogs-group": "/sluice/drain", "awslogs-stream-prefix": "drain"}
        definition = boto3.client("ecs").register_task_definition(
            family="drain",
            containerDefinitions=[
                {
                    "name": "drain",
                    "image": "x",
                    "memory": 64,
                    "logConfiguration": {"logDriver": "awslogs", "options": options},
                }
            ],
        )["taskDefinition"]["taskDefinitionArn"]
        log = _log_of({"taskArn": TASK, "taskDefinitionArn": definition})
        assert log == TaskLog("/sluice/drain", "drain/drain/0123456789abcdef")
        assert _log_in_stack(TaskLog("/sluice/drain", "drain/drain/fedcba9876543210"), TASK) == log
        assert _lines_in_cloudwatch(log) == ["10:11:12 INFO done stage=fetch seconds=0.1", "Killed"]
        assert _lines_in_cloudwatch(TaskLog("/sluice/drain", "drain/drain/gone")) == []
