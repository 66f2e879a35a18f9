"""Uploads files to a deployed stack and tracks them until their receipts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from deployment.deployed_stack import DeployedStack
from flows.pipeline.receipt import Receipt, ReceiptUnreadable, Status, receipt_key
from flows.refinery.errors import SluiceError, TerminalError
from lambda_trigger.message import MessageUnreadable, UploadMessage

_POLL_SECONDS = 0.4
_RECEIPTS = "receipts/"
_PREFECT_TIMEOUT_SECONDS = 3
_LOOPBACK = ("127.0.0.1", "localhost", "::1")  # reached without the user's proxy, if any
# docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html
_MAX_SINGLE_PUT_BYTES = 5 * 1024**3


class FileUnusable(TerminalError):
    """The file to upload does not exist, is not a file, cannot be read, or is too large for one upload call."""


class UploadState(StrEnum):
    """The state of an upload."""

    UPLOADED = "uploaded"
    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHED = "published"
    REJECTED = "rejected"
    FAILED = "failed"


_ENDINGS = {UploadState.PUBLISHED, UploadState.REJECTED, UploadState.FAILED}
_ORDER = list(UploadState)


@dataclass
class TrackedUpload:
    """One upload and its progress.

    Attributes:
        name: shown to the user.
        message: its identity.
        started: when it was uploaded, on the monotonic clock.
        stage: its state; it only advances.
        receipt: its receipt, once it exists.
        execution_status: its execution's status in Step Functions; None until it exists.
        problem: why it failed without a receipt.
        note: shown while it is processed.
        ended: when it ended, on the monotonic clock.
    """

    name: str
    message: UploadMessage
    started: float = field(default_factory=time.monotonic)
    stage: UploadState = UploadState.UPLOADED
    receipt: Receipt | None = None
    execution_status: str | None = None
    problem: str = ""
    note: str = ""
    ended: float | None = None

    @property
    def done(self) -> bool:
        """Return whether its execution has ended, and its receipt, if any, was read."""
        return self.stage in _ENDINGS and self.execution_status not in (None, "RUNNING")

    @property
    def seconds(self) -> float:
        """Return how long it has taken so far."""
        return (self.ended or time.monotonic()) - self.started

    def reach(self, stage: UploadState) -> None:
        """Move to a later state; an earlier one is ignored."""
        if _ORDER.index(stage) > _ORDER.index(self.stage):
            self.stage = stage
            if stage in _ENDINGS:
                self.ended = time.monotonic()


class Uploads:
    """Uploads to one stack, and reads its progress and results."""

    def __init__(self, cloud: DeployedStack) -> None:
        self._cloud = cloud
        self.unreadable: dict[str, str] = {}  # what could not be read so far, by address, and why
        self._s3, self._states = cloud.client("s3"), cloud.client("stepfunctions")

    def upload(self, path: Path, key: str, name: str | None = None) -> TrackedUpload:
        """Upload a file.

        Raises:
            FileUnusable: it cannot be read, or is larger than 5 GiB.
        """
        bucket = self._cloud.outputs["LandingBucket"]
        size_bytes = _size_of(path)
        started = time.monotonic()
        try:
            with path.open("rb") as body:
                answer = self._s3.put_object(Bucket=bucket, Key=key, Body=body)
        except OSError as error:
            raise FileUnusable(f"{path} cannot be read: {error.strerror}") from error
        message = UploadMessage(
            bucket=bucket,
            key=key,
            version_id=answer.get("VersionId"),
            etag=answer["ETag"].strip('"'),
            size_bytes=size_bytes,
        )
        return TrackedUpload(name or path.name, message, started)

    def look(self, uploads: Iterable[TrackedUpload]) -> None:
        """Update the state of the unfinished uploads."""
        unfinished = [upload for upload in uploads if not upload.done]
        runs = self._prefect_runs([upload.message.run_id for upload in unfinished])
        for upload in unfinished:
            self._look_at_execution(upload)
            state_type = runs.get(upload.message.run_id, "")
            if state_type == "RUNNING":
                upload.reach(UploadState.RUNNING)
            # A flow run that failed without a receipt is not final: the message is delivered again.
            upload.note = "an attempt failed; retrying" if state_type in ("FAILED", "CRASHED") else ""
            try:
                upload.receipt = upload.receipt or self.receipt(upload.message.run_id)
            except ReceiptUnreadable as error:
                upload.problem = str(error)
            if upload.receipt is not None:
                upload.note = ""
                published = upload.receipt.status is Status.PUBLISHED
                upload.reach(UploadState.PUBLISHED if published else UploadState.REJECTED)
            elif upload.execution_status in ("FAILED", "TIMED_OUT", "ABORTED", "SUCCEEDED"):
                upload.reach(UploadState.FAILED)

    def follow(
        self, uploads: list[TrackedUpload], *, deadline_seconds: float, on_look: Callable[[], None] = lambda: None
    ) -> bool:
        """Poll until all are done; return False if `deadline_seconds` passed first."""
        deadline = time.monotonic() + deadline_seconds
        while True:
            self.look(uploads)
            on_look()
            if all(upload.done for upload in uploads):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)

    def receipt(self, run_id: str) -> Receipt | None:
        """Return the receipt of a run; None if there is none yet."""
        try:
            answer = self._s3.get_object(Bucket=self._cloud.outputs["PublishedBucket"], Key=receipt_key(run_id))
        except self._s3.exceptions.NoSuchKey:
            return None
        return Receipt.from_json(answer["Body"].read())

    def runs_with_receipt(self) -> list[str]:
        """Return the ids of all runs that have a receipt, newest first."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._cloud.outputs["PublishedBucket"], Prefix=_RECEIPTS
        )
        listed = [entry for page in pages for entry in page.get("Contents", [])]
        listed.sort(key=lambda entry: entry["LastModified"], reverse=True)
        return [entry["Key"].removeprefix(_RECEIPTS).removesuffix(".json") for entry in listed]

    def receipts(self, run_ids: Iterable[str]) -> Iterator[Receipt]:
        """Return the receipts of these runs, without those that have none or an unreadable one."""
        for run_id in run_ids:
            try:
                receipt = self.receipt(run_id)
            except ReceiptUnreadable as error:
                self.unreadable[f"s3://{self._cloud.outputs['PublishedBucket']}/{receipt_key(run_id)}"] = str(error)
                continue
            if receipt is not None:
                yield receipt

    def queue_lengths(self) -> dict[str, int]:
        """Return how many messages wait, are being processed, and are in the dead-letter queue."""
        sqs = self._cloud.client("sqs")

        def count(queue: str, name: str) -> int:
            answer = sqs.get_queue_attributes(QueueUrl=self._cloud.outputs[queue], AttributeNames=[name])
            return int(answer["Attributes"][name])

        return {
            "waiting": count("QueueUrl", "ApproximateNumberOfMessages"),
            "being_worked_on": count("QueueUrl", "ApproximateNumberOfMessagesNotVisible"),
            "given_up": count("DeadLetterQueueUrl", "ApproximateNumberOfMessages"),
        }

    def running(self) -> Iterator[UploadMessage]:
        """Return the uploads with running executions, without executions that somebody started with other input."""
        pages = self._states.get_paginator("list_executions").paginate(
            stateMachineArn=self._cloud.outputs["StateMachineArn"], statusFilter="RUNNING"
        )
        for execution in (execution for page in pages for execution in page["executions"]):
            described = self._states.describe_execution(executionArn=execution["executionArn"])
            try:
                yield UploadMessage.from_execution_input(described["input"])
            except MessageUnreadable as error:
                self.unreadable[execution["executionArn"]] = str(error)

    def _look_at_execution(self, upload: TrackedUpload) -> None:
        machine = self._cloud.outputs["StateMachineArn"]
        arn = f"{machine.replace(':stateMachine:', ':execution:')}:{upload.message.execution_name}"
        try:
            execution = self._states.describe_execution(executionArn=arn)
        except self._states.exceptions.ExecutionDoesNotExist:
            return
        upload.reach(UploadState.QUEUED)
        upload.execution_status = execution["status"]
        upload.problem = ": ".join(filter(None, (execution.get("error"), execution.get("cause"))))

    def _prefect_runs(self, run_ids: list[str]) -> dict[str, str]:
        """Return the flow runs' state types by run id; none if Prefect does not respond."""
        if not run_ids:
            return {}
        url = f"{self._cloud.prefect_api_url}/flow_runs/filter"
        try:
            answer = httpx.post(
                url,
                json={"flow_runs": {"idempotency_key": {"any_": run_ids}}},
                headers=self._cloud.prefect_headers,
                timeout=_PREFECT_TIMEOUT_SECONDS,
                trust_env=urlsplit(url).hostname not in _LOOPBACK,
            )
            found = answer.raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, SluiceError):
            return {}  # also if a key may not be read: only the display suffers
        return {run["idempotency_key"]: run["state_type"] for run in found}


def _size_of(path: Path) -> int:
    if not path.exists():
        raise FileUnusable(f"{path} does not exist.")
    if not path.is_file():
        raise FileUnusable(f"{path} is not a file; upload one file at a time.")
    size_bytes = path.stat().st_size
    if size_bytes > _MAX_SINGLE_PUT_BYTES:
        raise FileUnusable(f"{path} has {size_bytes / 1024**3:.1f} GiB; S3 takes at most 5 GiB in one call.")
    return size_bytes
