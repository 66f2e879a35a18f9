"""Dispatches uploads in the same way as the Lambda, and starts drains of the queue."""

import json
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from blocks.aws import client_of
from blocks.aws_errors import aws_error_code, explain_aws_error, explaining_aws_errors
from lambda_trigger.dispatch import Dispatched, Dispatcher
from lambda_trigger.message import UploadMessage
from lambda_trigger.windows import backlog_drain, upload_drain, window_of


class Drains:
    """Starts executions of the state machine that drains the queue. Every method raises AwsUnavailable, AwsRefused or
    AwsCallInvalid if a call to AWS fails.

    Args:
        client: returns a boto3 client for a service.
    """

    def __init__(
        self,
        *,
        state_machine_arn: str,
        queue_url: str,
        published_bucket: str,
        window_seconds: int,
        client: Callable[[str], Any] = client_of,
    ) -> None:
        self._state_machine_arn = state_machine_arn
        self._queue_url = queue_url
        self._published_bucket = published_bucket
        self._window_seconds = window_seconds
        self._client = client

    @cached_property
    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            sqs=self._client("sqs"),
            step_functions=self._client("stepfunctions"),
            s3=self._client("s3"),
            queue_url=self._queue_url,
            state_machine_arn=self._state_machine_arn,
            published_bucket=self._published_bucket,
            window_seconds=self._window_seconds,
        )

    def dispatch(self, upload: UploadMessage) -> Dispatched:
        """Send the upload's message, then start the drain of the current window (lambda_trigger/windows.py). It is safe
        to repeat this."""
        with explaining_aws_errors(f"dispatching {upload.key}"):
            return self._dispatcher.dispatch(upload)

    def start(self) -> str:
        """Start a drain for messages that the Lambda did not send, such as redriven ones. Return the execution's ARN.

        The drain launches a task unless the maximum number of tasks is running. It does not check the number of
        messages first, because SQS's count may be out of date.
        """
        window = window_of(time.time(), self._window_seconds)
        arn = self._start(f"{upload_drain(window)}-{uuid4().hex[:12]}", {"source": "upload"})
        if arn is None:
            raise AssertionError("a random name cannot exist already")
        return arn

    def start_backlog(self, tasks: int) -> bool:
        """Start a drain that launches tasks until `tasks` are running. Return False if such a drain was already started
        in the current half minute."""
        return self._start(backlog_drain(time.time()), {"source": "backlog", "tasks": tasks}) is not None

    def _start(self, name: str, given: dict[str, object]) -> str | None:
        try:
            started = self._dispatcher.step_functions.start_execution(
                stateMachineArn=self._state_machine_arn, name=name, input=json.dumps(given)
            )
        except (BotoCoreError, ClientError) as error:
            if aws_error_code(error) == "ExecutionAlreadyExists":
                return None
            raise explain_aws_error(error, f"starting the drain {name}") from error
        return str(started["executionArn"])
