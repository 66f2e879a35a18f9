"""Pauses and resumes a stack, by creating and deleting an object that the Lambda, the drains and the tasks look for."""

import json
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors
from lambda_trigger.pause import PAUSE_KEY, is_paused


class Pause:
    """Creates, deletes and looks for the object that pauses the stack. Every method raises AwsUnavailable, AwsRefused
    or AwsCallInvalid if a call to S3 fails.

    Args:
        s3: a boto3 client for S3. If it is None, a client with this process's credentials is created when needed.
    """

    def __init__(self, published_bucket: str, s3: Any = None) -> None:
        self._bucket = published_bucket
        self._given = s3

    @cached_property
    def _s3(self) -> Any:
        return self._given or client_of("s3")

    def is_on(self) -> bool:
        with explaining_aws_errors("looking for a pause"):
            return is_paused(self._s3, self._bucket)

    def begin(self) -> None:
        """Pause the stack: new uploads wait in the queue, and tasks end after the uploads that they are processing."""
        mark = json.dumps({"since": datetime.now(UTC).isoformat(timespec="seconds")})
        with explaining_aws_errors("pausing the stack"):
            self._s3.put_object(Bucket=self._bucket, Key=PAUSE_KEY, Body=mark.encode(), ContentType="application/json")

    def end(self) -> None:
        """End the pause. The caller must start a drain afterwards, because the Lambda starts none for uploads that
        arrive during the pause, and no second drain in a window whose drain ended during the pause."""
        with explaining_aws_errors("ending the pause"):
            self._s3.delete_object(Bucket=self._bucket, Key=PAUSE_KEY)
