"""The running Step Functions executions of a stack are stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from deployment.aws.running_drains import end_drains

WAITING = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}}


@pytest.fixture
def step_functions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        yield boto3.client("stepfunctions")


def machine(step_functions: Any, name: str, executions: int) -> str:
    arn = str(
        step_functions.create_state_machine(
            name=name, definition=json.dumps(WAITING), roleArn="arn:aws:iam::123456789012:role/machine"
        )["stateMachineArn"]
    )
    for number in range(executions):
        step_functions.start_execution(stateMachineArn=arn, name=f"e-{number}")
    return arn


def running(step_functions: Any, arn: str) -> int:
    return len(step_functions.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"])


def test_every_running_execution_is_stopped_and_their_number_reported(step_functions: Any) -> None:
    arn = machine(step_functions, "drain", 3)
    told: list[int] = []
    assert end_drains(step_functions, {"StateMachineArn": arn}, told.append, reason="sluice destroy") == 3
    assert (running(step_functions, arn), told) == (0, [3])


@pytest.mark.parametrize(
    "outputs", [{}, {"StateMachineArn": "arn:aws:states:eu-central-1:123456789012:stateMachine:gone"}]
)
def test_a_stack_without_a_machine_has_no_executions(step_functions: Any, outputs: dict[str, str]) -> None:
    assert end_drains(step_functions, outputs, lambda _: pytest.fail("nothing to stop"), reason="r") == 0
