"""Saves the objects and messages that this release writes, so that tests can read them with later releases.

    python -m tests.compatibility.write

Run it once for each release that changes one of the formats. The folders of earlier releases are never changed.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import boto3
from moto import mock_aws

from blocks.settings import CONTRACTS, PipelineSettings
from flows import __version__
from flows.composition import assemble
from flows.pipeline.attempts import Attempt
from flows.pipeline.batch_notes import BatchNote, NotedUpload
from flows.pipeline.errors import UploadCancelled
from flows.pipeline.job import UploadJob
from flows.pipeline.protocol import index_key
from flows.pipeline.receipt import receipt_key
from flows.pipeline.run import run_upload
from lambda_trigger.message import UploadMessage
from tests.chain.files import dirty_orders

FOLDER = Path(__file__).parent
_LANDING, _PUBLISHED = "landing", "published"
_FILES = {"published": dirty_orders(), "rejected": b"order_id,quantity\nORD-00000001,1\n"}


def write(folder: Path) -> None:
    """Publish one file and reject another in an in-memory AWS account. Save to `folder` their receipts and messages, an
    index entry, an attempt, a batch note, a run ID and the shipped contract for orders."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    with mock_aws(), tempfile.TemporaryDirectory() as work:
        tempfile.tempdir = work
        s3 = boto3.client("s3")
        for bucket in (_LANDING, _PUBLISHED):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=_LANDING, VersioningConfiguration={"Status": "Enabled"})
        parts = assemble(
            PipelineSettings(stack="sluice", landing_bucket=_LANDING, published_bucket=_PUBLISHED, queue_url="unused")
        )
        for name, body in _FILES.items():
            key = f"incoming/orders/{name}.csv"
            stored = s3.put_object(Bucket=_LANDING, Key=key, Body=body)
            upload = UploadMessage(
                bucket=_LANDING,
                key=key,
                version_id=stored["VersionId"],
                etag=stored["ETag"].strip('"'),
                size_bytes=len(body),
                sequencer="0055AED6DCD90281E5",
                event_time="2026-01-01T00:00:00.000Z",
            )
            receipt = run_upload(parts, UploadJob(upload))
            _keep(folder / f"receipt-{name}.json", parts.store.get(receipt_key(receipt.run_id)))
            _keep(folder / f"message-{name}.json", upload.to_json())
        index = index_key("orders", _LANDING, "incoming/orders/published.csv")
        _keep(folder / "index.json", parts.store.get(index))
    attempt = Attempt.of(
        upload, UploadCancelled("cancelled in Prefect"), dataset="orders", receive_count=2, task_arn=None, given_up=True
    )
    _keep(folder / "attempt.json", attempt.to_json())
    note = BatchNote(task="t1", number=1, uploads=(NotedUpload(upload=upload, message_id="m1"),), at=attempt.at)
    _keep(folder / "batch-note.json", note.to_json())
    for name in ("contract.yaml", "steps.py"):
        (folder / "orders").mkdir(exist_ok=True)
        _keep(folder / "orders" / name, (CONTRACTS / "orders" / name).read_text())
    (folder / "run-ids.json").write_text(json.dumps({"rejected": upload.run_id}, indent=1) + "\n")


def _keep(path: Path, content: object) -> None:
    body = getattr(content, "body", content)
    text = body.decode() if isinstance(body, bytes) else str(body)
    path.write_text(text.rstrip("\n") + "\n")


if __name__ == "__main__":
    write(FOLDER / __version__)
