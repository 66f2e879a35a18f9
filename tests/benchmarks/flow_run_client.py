"""Shows the uploads of a task in Prefect as the task does, but without the work on the data.

    python -m tests.benchmarks.flow_run_client live|bulk UPLOADS

The first upload goes through the real stages as a live flow run, and the others reuse its results. Everything that
Prefect receives is produced by the same code as in a task: FlowRunner or, in bulk, the recorder. After the first
upload, the program prints "ready" and waits for a line of input. At the end it prints the number of requests that it
made.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any
from uuid import uuid4

import boto3
import httpx
from moto import mock_aws

from blocks.settings import PipelineSettings
from flows.composition import assemble
from flows.observability.flow_run import FlowRunner
from flows.observability.recorder import Recorder
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.receipt import Chain, Receipt
from flows.pipeline.run import Call, plainly, run_upload
from lambda_trigger.message import UploadMessage
from tests.chain.files import dirty_orders

LIVE, BULK = "live", "bulk"
_LANDING, _PUBLISHED = "landing", "published"
_LOGS_REST_SECONDS = 3  # Prefect sends log lines every two seconds


class Remembered:
    """Processes the first upload, and runs all others with the results of the first one."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}
        self._source = b""

    def run(self, parts: Parts, job: UploadJob, call: Call = plainly, *more: Any) -> Receipt:
        """Process an upload until it has a receipt, and return the receipt."""
        return run_upload(parts, job, lambda stage, *values: call(self._remembered(stage), *values), *more)

    def _remembered(self, stage: Callable[..., Any]) -> Callable[..., Any]:
        name = stage.__name__

        @wraps(stage)
        def do(*values: Any) -> Any:
            if name in self._found:
                return self._again(name, values)
            self._found[name] = stage(*values)
            if name == "fetch":
                self._source = self._found[name].source.read_bytes()
            return self._found[name]

        return do

    def _again(self, name: str, values: tuple[Any, ...]) -> Any:
        found = self._found[name]
        if name == "fetch":
            *_, work_dir = values
            (work_dir / "source").write_bytes(self._source)
            return replace(found, source=work_dir / "source", work_dir=work_dir)
        if name == "record":
            _, job, _ = values
            return found.model_copy(update={"run_id": job.upload.run_id, "chain": job.chain})
        return replace(found)


class Requests:
    """Counts the HTTP requests of this process, including those of Prefect's threads."""

    def __init__(self) -> None:
        self.made = 0

    def count(self) -> None:
        """Count the requests from now on."""
        send, send_async = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

        def counted(*call: Any) -> Any:
            self.made += 1
            return send(*call)

        def counted_async(*call: Any) -> Any:
            self.made += 1
            return send_async(*call)

        setattr(httpx.HTTPTransport, send.__name__, counted)
        setattr(httpx.AsyncHTTPTransport, send_async.__name__, counted_async)


def main(kind: str, uploads: int) -> None:
    """Show the uploads, either one after another as live flow runs or recorded in bulk."""
    requests = Requests()
    with mock_aws():
        parts = _parts()
        upload = _upload(parts)
        runner, recorder = FlowRunner(parts, Remembered().run), Recorder(parts)
        first = _process(runner, upload)
        print("ready", flush=True)
        sys.stdin.readline()
        time.sleep(_LOGS_REST_SECONDS)
        requests.count()
        others = [replace(upload, version_id=uuid4().hex) for _ in range(uploads)]
        if kind == LIVE:
            for other in others:
                _process(runner, other)
        else:
            _record(recorder, first, others)
        time.sleep(_LOGS_REST_SECONDS)
        print(f"requests {requests.made}", flush=True)


def _record(recorder: Recorder, first: Receipt, uploads: Sequence[UploadMessage]) -> None:
    unseen = first.chain.model_copy(update={"flow_run_id": None})
    receipts = [first.model_copy(update={"run_id": upload.run_id, "chain": unseen}) for upload in uploads]
    if len(recorder.record(receipts)) != len(receipts):
        raise SystemExit("not every upload was recorded, so the measurement is invalid")


def _process(runner: FlowRunner, upload: UploadMessage) -> Receipt:
    receipt = runner.process(UploadJob(upload, Chain(receive_count=1)))
    if receipt.chain.flow_run_id is None:
        raise SystemExit("an upload was not shown as a live run, so the measurement is invalid")
    return receipt


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
    main(sys.argv[1], int(sys.argv[2]))
