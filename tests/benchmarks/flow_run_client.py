"""The flow runs of one container as Prefect sees them, without the work on the data.

    python -m tests.benchmarks.flow_run_client RUNS

The first upload goes through the real stages; the others reuse its outcome. FlowRunner, flow, tasks, states, logs,
artifacts, tags and events are those of a container. Prints "ready" then, and starts on a line of input.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any
from uuid import uuid4

import boto3
from moto import mock_aws

from blocks.settings import PipelineSettings
from flows.composition import assemble
from flows.observability.flow_run import FlowRunner
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.receipt import Chain, Receipt
from flows.pipeline.run import Call, plainly, run_upload
from lambda_trigger.message import UploadMessage
from tests.chain.files import dirty_orders

_LANDING, _PUBLISHED = "landing", "published"


class Remembered:
    """Processes a first upload, and shows every other one with what that one found."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}
        self._source = b""

    def run(self, parts: Parts, job: UploadJob, call: Call = plainly, *more: Any) -> Receipt:
        """Take an upload to its end."""
        return run_upload(parts, job, lambda stage, *values: call(self._remembered(stage), *values), *more)

    def _remembered(self, stage: Callable[..., Any]) -> Callable[..., Any]:
        name = stage.__name__

        @wraps(stage)
        def do(*values: Any) -> Any:
            if name in self._found:
                return self._again(name, values)
            self._found[name] = stage(*values)
            if name == "fetch":
                self._source = self._found[name].path.read_bytes()
            return self._found[name]

        return do

    def _again(self, name: str, values: tuple[Any, ...]) -> Any:
        found = self._found[name]
        if name == "fetch":
            *_, work_dir = values
            (work_dir / "source").write_bytes(self._source)
            return replace(found, path=work_dir / "source")
        if name == "record":
            _, job, _ = values
            return found.model_copy(update={"run_id": job.upload.run_id, "chain": job.chain})
        return replace(found)


def main(runs: int) -> None:
    """Create the runs, one after the other."""
    with mock_aws():
        parts = _parts()
        upload = _upload(parts)
        runner = FlowRunner(parts, Remembered().run)
        _process(runner, upload)
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(runs):
            _process(runner, replace(upload, version_id=uuid4().hex))


def _process(runner: FlowRunner, upload: UploadMessage) -> None:
    receipt = runner.process(UploadJob(upload, Chain(receive_count=1)))
    if receipt.chain.flow_run_id is None:
        raise SystemExit("a run went unobserved; what was measured is worth nothing")


def _parts() -> Parts:
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    for bucket in (_LANDING, _PUBLISHED):
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=_LANDING, VersioningConfiguration={"Status": "Enabled"})
    queue_url = sqs.create_queue(QueueName="uploads")["QueueUrl"]
    return assemble(
        PipelineSettings(stack="sluice", landing_bucket=_LANDING, published_bucket=_PUBLISHED, queue_url=queue_url)
    )


def _upload(parts: Parts) -> UploadMessage:
    key, body = "incoming/orders/monday.csv", dirty_orders()
    put = boto3.client("s3").put_object(Bucket=parts.settings.landing_bucket, Key=key, Body=io.BytesIO(body))
    return UploadMessage(
        bucket=parts.settings.landing_bucket,
        key=key,
        version_id=put["VersionId"],
        etag=put["ETag"].strip('"'),
        size_bytes=len(body),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
