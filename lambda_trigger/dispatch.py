"""Dispatches an upload: a message to the queue, then the execution that drains the queue in this window of time.

The order is the promise: the message is sent before the clock is read, so the execution that the clock names is not
over before the message is there. docs/architecture.md has the rules.
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

# The window has its execution: a closed one of that name (kept for 90 days), or a running one with another input.
# With the same input a running one is returned:
# docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
_ALREADY_STARTED = "ExecutionAlreadyExists"


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What was done for an upload."""

    message_id: str  # the id of its message
    drain: str  # what drains it: "started" by this call, "covered" by an execution that exists, or "paused" for none
    execution_arn: str | None = None  # the execution; None unless this call started it or found it running


@dataclass(frozen=True)
class Dispatcher:
    """Dispatches uploads."""

    sqs: Any  # the boto3 clients
    step_functions: Any
    s3: Any
    queue_url: str  # takes one message for each upload
    state_machine_arn: str  # drains the queue
    published_bucket: str  # holds the mark of a pause
    window_seconds: int  # how long all uploads share one execution
    clock: Callable[[], float] = time.time  # returns the seconds since 1970
    _started: set[int] = field(default_factory=set, repr=False)

    def dispatch(self, upload: UploadMessage) -> Dispatched:
        """Send the message of one upload, and start the drain of the window unless it was started before.

        Raises:
            botocore.exceptions.ClientError, BotoCoreError: a call was refused or not answered. Repeating it all is
                safe: a second message finds the first one's receipt, and the window's execution starts once.
        """
        message_id = self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=upload.to_json())["MessageId"]
        window = window_of(self.clock(), self.window_seconds)
        if window in self._started:
            return Dispatched(message_id, "covered")
        if is_paused(self.s3, self.published_bucket):
            return Dispatched(message_id, "paused")
        arn = self._start(window)
        self._started.clear()  # only the newest matters: the clock does not go back
        self._started.add(window)
        return Dispatched(message_id, "started" if arn else "covered", arn)

    def _start(self, window: int) -> str | None:
        try:
            started = self.step_functions.start_execution(
                stateMachineArn=self.state_machine_arn,
                name=upload_drain(window),
                input=json.dumps({"source": "upload"}),
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == _ALREADY_STARTED:
                return None
            raise
        return str(started["executionArn"])
