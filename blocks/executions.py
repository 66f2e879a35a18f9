"""Look up and dispatch uploads the way the Lambda does."""

from __future__ import annotations

from functools import cached_property

from botocore.exceptions import BotoCoreError, ClientError

from blocks.aws import client_of
from blocks.aws_errors import aws_error_code, explain_aws_error, explaining_aws_errors
from lambda_trigger.dispatch import Dispatched, Dispatcher
from lambda_trigger.message import UploadMessage


class Executions:
    """The Step Functions executions of uploads, and the queue that takes their messages."""

    def __init__(self, *, state_machine_arn: str, queue_url: str) -> None:
        self._state_machine_arn = state_machine_arn
        self._queue_url = queue_url

    @cached_property
    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(client_of("sqs"), client_of("stepfunctions"), self._queue_url, self._state_machine_arn)

    def status(self, upload: UploadMessage) -> str | None:
        """Return the status of the upload's execution (RUNNING, SUCCEEDED, FAILED, ...), None when there is none.

        Step Functions keeps an execution for 90 days after its end.
        """
        arn = f"{self._state_machine_arn.replace(':stateMachine:', ':execution:')}:{upload.execution_name}"
        try:
            return str(self._dispatcher.step_functions.describe_execution(executionArn=arn)["status"])
        except (BotoCoreError, ClientError) as error:
            if aws_error_code(error) == "ExecutionDoesNotExist":
                return None
            raise explain_aws_error(error, f"looking for the execution {upload.execution_name}") from error

    def dispatch(self, upload: UploadMessage) -> Dispatched:
        """Send the upload's message, then start its execution. Safe to repeat."""
        with explaining_aws_errors(f"dispatching {upload.key}"):
            return self._dispatcher.dispatch(upload)
