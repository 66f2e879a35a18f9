"""A pipeline without Prefect, on AWS services that moto simulates in the test's process."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest

from blocks.settings import PipelineSettings
from flows.composition import assemble
from flows.pipeline import drain
from flows.pipeline.commit import read_receipt
from flows.pipeline.data_docs import list_pages
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.receipt import Receipt
from flows.pipeline.run import run_upload
from lambda_trigger.message import UploadMessage
from tests.unit.empty_account import empty_account

LANDING, PUBLISHED = "landing", "published"


@dataclass
class Account:
    """The simulated AWS account and the parts of its pipeline, with methods that upload, process and look up files."""

    parts: Parts

    @cached_property
    def _s3(self) -> Any:
        return boto3.client("s3")

    @cached_property
    def _sqs(self) -> Any:
        return boto3.client("sqs")

    def upload(self, key: str, body: bytes, sequencer: str = "0001") -> UploadMessage:
        """Put a file into the landing bucket, and return the message for its upload."""
        response = self._s3.put_object(Bucket=LANDING, Key=key, Body=body)
        return UploadMessage(
            bucket=LANDING,
            key=key,
            version_id=response.get("VersionId"),
            etag=response["ETag"].strip('"'),
            size_bytes=len(body),
            sequencer=sequencer,
        )

    def process(self, upload: UploadMessage, **options: Any) -> Receipt:
        """Process an upload without Prefect, update the Data Docs index, and return the receipt."""
        receipt = run_upload(self.parts, UploadJob(upload, **options))
        list_pages(self.parts.store, [receipt])
        return receipt

    def receipt(self, upload: UploadMessage) -> Receipt | None:
        """Return the receipt of an upload, or None if it does not exist yet."""
        return read_receipt(self.parts.store, upload.run_id)

    def send(self, body: str) -> None:
        """Send a message with this body to the queue of uploads."""
        self._sqs.send_message(QueueUrl=self.parts.queue.queue_url, MessageBody=body)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the object keys below a prefix in the published bucket."""
        listed = self._s3.list_objects_v2(Bucket=PUBLISHED, Prefix=prefix)
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def messages(self) -> int:
        """Return how many messages the queue of uploads contains, both visible and invisible."""
        return self._messages_in(self.parts.queue.queue_url)

    def dead_letters(self) -> int:
        """Return how many messages the dead-letter queue contains."""
        return self._messages_in(self.parts.queue.dead_letter_queue_url)

    def _messages_in(self, queue_url: str) -> int:
        described = self._sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
        return int(described["ApproximateNumberOfMessages"]) + int(described["ApproximateNumberOfMessagesNotVisible"])


class DrainClock:
    """The clock of a drain, which a test can put forward."""

    seconds_ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.seconds_ahead

    def time(self) -> float:
        return time.time() + self.seconds_ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> DrainClock:
    """Give drains a clock that the test can put forward."""
    clock = DrainClock()
    monkeypatch.setattr(drain, "time", clock)
    return clock


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    """Simulate an AWS account with a landing and a published bucket, a queue of uploads and its dead-letter queue."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(drain, "_PREFETCH_WAIT_SECONDS", 0)  # SQS asks all its servers meanwhile; moto only sleeps
    with empty_account():
        s3 = boto3.client("s3")
        for bucket in (LANDING, PUBLISHED):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=LANDING, VersioningConfiguration={"Status": "Enabled"})
        sqs = boto3.client("sqs")
        dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
        dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 5})
        queue_url = sqs.create_queue(QueueName="uploads", Attributes={"RedrivePolicy": redrive})["QueueUrl"]
        settings = PipelineSettings(
            stack="sluice",
            landing_bucket=LANDING,
            published_bucket=PUBLISHED,
            queue_url=queue_url,
            dead_letter_queue_url=dead,
            receive_wait_seconds=0,
        )
        timeout = str(settings.visibility_timeout_seconds)
        sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"VisibilityTimeout": timeout})
        yield Account(assemble(settings))
