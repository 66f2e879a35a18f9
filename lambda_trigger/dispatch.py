"""Dispatches an upload: sends a message to the queue, then starts the drain of the current window (windows.py).

The order matters. The message is sent before the clock is read, so it is in the queue before the current window ends,
and that window's drain covers it. docs/architecture.md describes the rules.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from lambda_trigger.message import UploadMessage
from lambda_trigger.pause import is_paused
from lambda_trigger.windows import upload_drain, window_of

# An execution with this name has ended (names are kept for 90 days), or is running with a different input. If it is
# running with the same input, there is no error:
# docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
_ALREADY_STARTED = "ExecutionAlreadyExists"


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The result of dispatching an upload."""

    message_id: str  # the SQS message that was sent
    drain: str  # "started" if StartExecution succeeded, "covered" if the execution already existed, or "paused"
    execution_arn: str | None = None  # the execution; None unless `drain` is "started"


@dataclass(frozen=True)
class Dispatcher:
    """Sends messages for uploads, and starts one drain for each window."""

    sqs: Any  # a boto3 client, like the next two
    step_functions: Any
    s3: Any
    queue_url: str  # takes one message for each upload
    state_machine_arn: str  # drains the queue
    published_bucket: str  # contains an object during a pause (pause.py)
    window_seconds: int  # the length of a window, in which all uploads share one execution
    clock: Callable[[], float] = time.time  # returns the seconds since 1970
    _started: set[int] = field(default_factory=set, repr=False)

    def dispatch(self, upload: UploadMessage) -> Dispatched:
        """Send an upload's message, and start the current window's drain, unless that was done before or the stack is
        paused.

        Raises:
            botocore.exceptions.ClientError, BotoCoreError: a call failed. It is safe to dispatch the upload again,
                because a task that receives the second message finds the receipt, and a window's drain is started only
                once.
        """
        message_id = self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=upload.to_json())["MessageId"]
        window = window_of(self.clock(), self.window_seconds)
        if window in self._started:
            return Dispatched(message_id, "covered")
        if is_paused(self.s3, self.published_bucket):
            return Dispatched(message_id, "paused")
        arn = start_drain(self.step_functions, self.state_machine_arn, upload_drain(window), {"source": "upload"})
        self._started.clear()  # only the newest matters: the clock does not go back
        self._started.add(window)
        return Dispatched(message_id, "started" if arn else "covered", arn)


def start_drain(step_functions: Any, state_machine_arn: str, name: str, given: dict[str, object]) -> str | None:
    """Start an execution of the state machine, with the name `name` and the input `given`. Return the ARN of the
    execution, or None if Step Functions reports that the name was used before."""
    try:
        started = step_functions.start_execution(stateMachineArn=state_machine_arn, name=name, input=json.dumps(given))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == _ALREADY_STARTED:
            return None
        raise
    return str(started["executionArn"])
