"""One container from Prefect's point of view: its flow runs, without the work on the data.

    python -m tests.benchmarks.flow_run_client RUNS

A first upload goes through the real stages; the others repeat its results. Flow, tasks, states, logs, artifacts, tags
and events are the container's. It prints "ready", and starts when it reads a line.
"""

from __future__ import annotations

import io
import os
import sys
from dataclasses import replace
from typing import ClassVar
from uuid import uuid4

import boto3
from moto import mock_aws

from blocks.object_store import ObjectFacts
from blocks.settings import PipelineSettings
from flows import process_upload
from flows.composition import Pipeline, assemble
from flows.observability.flow_run import Observer
from flows.pipeline.receipt import Chain, Output, Receipt
from flows.pipeline.stages import UploadRun
from flows.process_upload import Assignment
from flows.refinery.refine import JudgedFile, Refined
from lambda_trigger.message import UploadMessage
from tests.chain.files import dirty_orders

_LANDING, _PUBLISHED = "landing", "published"


class RealRun(UploadRun):
    """Run the real stages and keep the results."""

    last: ClassVar[RealRun]
    source_bytes: bytes = b""

    def record(self) -> Receipt:
        """Commit the receipt."""
        RealRun.last, self.source_bytes = self, self.source.read_bytes()
        return super().record()


class RememberedRun(UploadRun):
    """Return the results of the real run at once."""

    def find_receipt(self) -> Receipt | None:
        """Treat every upload as new."""
        return None

    def fetch(self) -> ObjectFacts:
        """Return the same file each time."""
        self.source.write_bytes(RealRun.last.source_bytes)
        self._contract = RealRun.last.contract
        return self._need(RealRun.last._facts)

    def validate(self) -> JudgedFile:
        """Return the same results."""
        return self._need(RealRun.last._validated)

    def refine(self) -> Refined:
        """Return the same rows."""
        return self._need(RealRun.last._prepared)

    def publish(self) -> tuple[Output, ...]:
        """Return the same outputs."""
        return RealRun.last._outputs

    def record(self) -> Receipt:
        """Return the same receipt, except for its run id."""
        receipt = self._need(RealRun.last.receipt)
        return receipt.model_copy(update={"run_id": self.upload.run_id, "chain": self.chain})


def main(runs: int) -> None:
    """Create the runs, one after the other."""
    with mock_aws():
        parts = _pipeline()
        upload = _upload(parts)
        observer = Observer(parts.settings.prefect_names.deployment("process-upload"))
        _see_through(observer, parts, upload, RealRun)
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(runs):
            _see_through(observer, parts, replace(upload, version_id=uuid4().hex), RememberedRun)


def _see_through(observer: Observer, parts: Pipeline, upload: UploadMessage, kind: type[UploadRun]) -> None:
    setattr(process_upload, "UploadRun", kind)  # noqa: B010 (the flow's own name for it, which mypy calls private)
    receipt = observer.process(Assignment(parts, upload, Chain(receive_count=1)))
    if receipt.chain.flow_run_id is None:
        raise SystemExit("a run went unobserved; what was measured is worth nothing")


def _pipeline() -> Pipeline:
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    for bucket in (_LANDING, _PUBLISHED):
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=_LANDING, VersioningConfiguration={"Status": "Enabled"})
    queue_url = sqs.create_queue(QueueName="uploads")["QueueUrl"]
    return assemble(
        PipelineSettings(stack="sluice", landing_bucket=_LANDING, published_bucket=_PUBLISHED, queue_url=queue_url)
    )


def _upload(parts: Pipeline) -> UploadMessage:
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
