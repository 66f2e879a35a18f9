"""Stops a stack's drains, which are the running executions of its state machine. A stopped drain also stops its tasks,
and launches no more.

docs.aws.amazon.com/step-functions/latest/apireference/API_StopExecution.html
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from blocks.aws_errors import aws_error_code


def end_drains(step_functions: Any, outputs: Mapping[str, str], on_stop: Callable[[int], None], *, reason: str) -> int:
    """Stop every running execution of the stack's state machine, and return the number of stopped executions.

    No upload is lost, because the messages are in the queue or return to it. If the state machine does not exist, there
    are no executions to stop.

    Args:
        step_functions: a boto3 client for Step Functions.
        outputs: the stack's outputs.
        on_stop: called with the number of executions before they are stopped, unless there are none.
        reason: the cause that Step Functions shows for the stopped executions.
    """
    running = list(_running(step_functions, outputs["StateMachineArn"])) if "StateMachineArn" in outputs else []
    if running:
        on_stop(len(running))
    for arn in running:
        step_functions.stop_execution(executionArn=arn, error="Stopped", cause=reason)
    return len(running)


def _running(step_functions: Any, machine: str) -> Iterator[str]:
    pages = step_functions.get_paginator("list_executions")
    try:
        for page in pages.paginate(stateMachineArn=machine, statusFilter="RUNNING"):
            yield from (str(execution["executionArn"]) for execution in page["executions"])
    except ClientError as error:
        if aws_error_code(error) != "StateMachineDoesNotExist":
            raise
