"""Dispatches an upload: a message to the queue, then an execution that follows it to its receipt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from lambda_trigger.message import UploadMessage

# This upload has its execution: a closed one of that name (kept for 90 days), or a running one with another
# input: docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
_ALREADY_STARTED = "ExecutionAlreadyExists"


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The id of the message, and the ARN of the execution; None when it existed already."""

    message_id: str
    execution_arn: str | None


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Dispatches uploads. The message goes first: an execution without a message would wait for nothing, while a
    message without an execution is still found by the next task that drains the queue.

    Attributes:
        sqs, step_functions: the boto3 clients.
    """

    sqs: Any
    step_functions: Any
    queue_url: str
    state_machine_arn: str

    def dispatch(self, upload: UploadMessage) -> Dispatched:
        """Send the message and start the execution of one upload.

        Raises:
            botocore.exceptions.ClientError: a call was refused; repeating both calls is safe, since a second message
                finds the first one's receipt, and no second execution of the same name starts.
        """
        sent = self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=upload.to_json())
        return Dispatched(sent["MessageId"], self._start_execution(upload))

    def _start_execution(self, upload: UploadMessage) -> str | None:
        try:
            started = self.step_functions.start_execution(
                stateMachineArn=self.state_machine_arn,
                name=upload.execution_name,
                input=upload.execution_input(),
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == _ALREADY_STARTED:
                return None
            raise
        return str(started["executionArn"])
