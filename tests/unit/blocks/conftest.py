"""Fixtures for blocks: an AWS account that moto simulates in the test's process."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest

from blocks.object_store import ObjectStore
from blocks.upload_queue import UploadQueue
from tests.unit.empty_account import empty_account

LANDING, PUBLISHED = "landing", "published"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulate an empty AWS account."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with empty_account():
        yield


@pytest.fixture
def store(aws: None) -> ObjectStore:
    """Create the landing bucket, which is versioned, and the published bucket, and return the store for both."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=LANDING)
    s3.create_bucket(Bucket=PUBLISHED)
    s3.put_bucket_versioning(Bucket=LANDING, VersioningConfiguration={"Status": "Enabled"})
    return ObjectStore(landing_bucket=LANDING, published_bucket=PUBLISHED)


@pytest.fixture
def queue(aws: None) -> UploadQueue:
    """Create an empty queue of uploads."""
    url = boto3.client("sqs").create_queue(QueueName="uploads")["QueueUrl"]
    return UploadQueue(queue_url=url, visibility_timeout_seconds=30)
