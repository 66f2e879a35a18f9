"""Drains the queue, but only fetches each file and writes a receipt of two bytes, which is the minimum work of a task.

    python -m tests.benchmarks.fetch_only

bench_burst.py runs this instead of the container's command, to show what the machine and its local cloud allow at best.
"""

from __future__ import annotations

import os
import time
from typing import Any

from blocks.aws import client_of
from blocks.settings import PipelineSettings
from flows.pipeline.receipt import receipt_key
from lambda_trigger.message import UploadMessage


def main() -> None:
    """Drain the queue, and wait for more messages as long as the container does."""
    settings, sqs = PipelineSettings.from_environment(), client_of("sqs")
    s3 = client_of("s3")
    stay_until = float(os.environ.get("SLUICE_STAY_UNTIL") or 0)
    while True:
        asked = time.time()
        answer = sqs.receive_message(QueueUrl=settings.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        messages = answer.get("Messages", [])
        for message in messages:
            _work(s3, settings, UploadMessage.from_json(message["Body"]))
        if messages:
            entries = [{"Id": one["MessageId"], "ReceiptHandle": one["ReceiptHandle"]} for one in messages]
            sqs.delete_message_batch(QueueUrl=settings.queue_url, Entries=entries)
        elif asked > stay_until:
            return


def _work(s3: Any, settings: PipelineSettings, upload: UploadMessage) -> None:
    s3.get_object(Bucket=upload.bucket, Key=upload.key, VersionId=upload.version_id)["Body"].read()
    s3.put_object(Bucket=settings.published_bucket, Key=receipt_key(upload.run_id), Body=b"{}", IfNoneMatch="*")


if __name__ == "__main__":
    main()
