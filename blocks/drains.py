"""Dispatches uploads in the same way as the Lambda, and starts drains of the queue."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import uuid4

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors
from lambda_trigger.dispatch import Dispatched, Dispatcher, start_drain
from lambda_trigger.message import UploadMessage
from lambda_trigger.windows import backlog_drain, upload_drain, window_of


@dataclass(frozen=True, kw_only=True)
class Drains:
    """Starts executions of the state machine that drains the queue. Every method raises AwsUnavailable, AwsRefused or
    AwsCallInvalid if a call to AWS fails."""

    state_machine_arn: str
    queue_url: str
    published_bucket: str
    window_seconds: int  # the length of a window, in which all uploads share one execution
    client: Callable[[str], Any] = client_of  # returns a boto3 client for a service

    @cached_property
    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            sqs=self.client("sqs"),
            step_functions=self.client("stepfunctions"),
            s3=self.client("s3"),
            queue_url=self.queue_url,
            state_machine_arn=self.state_machine_arn,
            published_bucket=self.published_bucket,
            window_seconds=self.window_seconds,
        )

    def dispatch(self, upload: UploadMessage) -> Dispatched:
        """Send the upload's message, then start the drain of the current window, unless it was started before or the
        stack is paused (lambda_trigger/dispatch.py). It is safe to repeat this."""
        with explaining_aws_errors(f"dispatching {upload.key}"):
            return self._dispatcher.dispatch(upload)

    def start(self) -> str:
        """Start a drain for messages that the Lambda did not send, such as redriven ones. Return the execution's ARN.

        The drain launches a task unless the maximum number of tasks is running. It does not check the number of
        messages first, because SQS's count may be out of date.
        """
        window = window_of(time.time(), self.window_seconds)
        arn = self._start(f"{upload_drain(window)}-{uuid4().hex[:12]}", {"source": "upload"})
        if arn is None:
            raise AssertionError("a random name cannot exist already")
        return arn

    def start_backlog(self, tasks: int) -> bool:
        """Start a drain that launches tasks until `tasks` are running, but at most MaxConcurrentTasks. Return False if
        such a drain was already started in the current half minute."""
        return self._start(backlog_drain(time.time()), {"source": "backlog", "tasks": tasks}) is not None

    def _start(self, name: str, given: dict[str, object]) -> str | None:
        with explaining_aws_errors(f"starting the drain {name}"):
            return start_drain(self._dispatcher.step_functions, self.state_machine_arn, name, given)
