"""Measures the CPU seconds and the AWS requests that a small file costs a task, without Prefect and the refine stage.

    python -m tests.benchmarks.bench_task [--files 300] [--rows 1000] [--live]

MiniStack, an AWS emulator, provides the buckets and queues. It runs in a separate process, which is not measured. The
CPU time of the refine stage is measured separately and subtracted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import httpx

from blocks.settings import PipelineSettings
from deployment import PROJECT_ROOT
from deployment.local.environment import aws_environment
from deployment.local.ports import free_port
from flows.composition import assemble
from flows.pipeline.announce import Announcer
from flows.pipeline.closing import Outlets
from flows.pipeline.drain import Drain, Live
from flows.pipeline.job import Parts, TaskIdentity, UploadJob
from flows.pipeline.receipt import Receipt
from flows.pipeline.run import run_upload
from flows.refinery.refine import refine_file
from lambda_trigger.message import UploadMessage
from tests.chain.files import good_orders
from tests.looking import looks


def main() -> int:
    """Run the benchmark, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--files", type=int, default=300)
    arguments.add_argument("--rows", type=int, default=1000)
    arguments.add_argument("--live", action="store_true", help="one file after the other, as with few files")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        port = free_port()
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0"}
        cloud = subprocess.Popen(
            [PROJECT_ROOT / ".venv-cloud" / "bin" / "ministack"],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            os.environ.update(aws_environment(f"http://127.0.0.1:{port}", "us-east-1"))
            for _ in looks(60):
                if _is_up(port):
                    break
            _measure(given.files, given.rows, Path(folder), live=given.live)
        finally:
            cloud.terminate()
            cloud.wait()
    return 0


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").status_code < 500
    except httpx.HTTPError:
        return False


def _measure(files: int, rows: int, folder: Path, *, live: bool) -> None:
    parts, body = _account(live=live), good_orders(rows)
    requests: Counter[str] = Counter()
    session = boto3.DEFAULT_SESSION or boto3._get_default_session()
    session.events.register("before-send", lambda event_name, **_: requests.update([_call(event_name)]))
    _drain(parts, _upload(5, body, "warm"), live=live)
    refine = _refine_seconds(parts, body, folder)
    uploads = _upload(files, body, "file")
    requests.clear()
    cpu, wall = time.process_time(), time.monotonic()
    _drain(parts, uploads, live=live)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall - 2 * parts.settings.receive_wait_seconds
    print(f"{files} files of {rows} rows: {files / wall:.1f} files/s")
    print(f"CPU per file: {cpu / files * 1000:.0f} ms, of which refine {refine * 1000:.0f} ms")
    print(f"CPU per file without refine: {(cpu / files - refine) * 1000:.0f} ms")
    print(f"requests per file: {requests.total() / files:.2f}")
    for call, count in requests.most_common():
        print(f"  {call:45} {count / files:6.2f}")


def _call(event_name: str) -> str:
    return event_name.removeprefix("before-send.")


def _account(*, live: bool) -> Parts:
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    for bucket in ("landing", "published"):
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket="landing", VersioningConfiguration={"Status": "Enabled"})
    url = sqs.create_queue(QueueName="uploads")["QueueUrl"]
    return assemble(
        PipelineSettings(
            stack="bench",
            landing_bucket="landing",
            published_bucket="published",
            queue_url=url,
            receive_wait_seconds=1,
            live_backlog=100_000 if live else 10,
        )
    )


def _upload(files: int, body: bytes, name: str) -> list[UploadMessage]:
    s3 = boto3.client("s3")
    uploads = []
    for number in range(files):
        key = f"incoming/orders/{name}-{number}.csv"
        stored = s3.put_object(Bucket="landing", Key=key, Body=body)
        uploads.append(
            UploadMessage(
                bucket="landing",
                key=key,
                version_id=stored["VersionId"],
                etag=stored["ETag"].strip('"'),
                size_bytes=len(body),
                sequencer=f"{number:016X}",
                event_time="2026-01-01T00:00:00.000Z",
            )
        )
    return uploads


def _drain(parts: Parts, uploads: Sequence[UploadMessage], *, live: bool) -> None:
    for upload in uploads:
        boto3.client("sqs").send_message(QueueUrl=parts.queue.queue_url, MessageBody=upload.to_json())

    def process(job: UploadJob) -> Receipt:
        return run_upload(parts, job)

    def all_of(taken: Sequence[Any]) -> frozenset[str]:
        return frozenset(one.run_id for one in taken)

    drain = Drain(
        parts,
        TaskIdentity(),
        Live(process, lambda: live),
        Outlets(Announcer(parts).announce, all_of),
        ask_for_tasks=lambda _: None,
        is_paused=lambda: False,
        end_of_task=lambda _: None,
    )
    if not drain.run():
        raise SystemExit("messages were returned")


def _refine_seconds(parts: Parts, body: bytes, folder: Path) -> float:
    """Return the CPU seconds that the refine stage takes for the file in a process that has already refined it once."""
    contract = parts.contracts.for_key("incoming/orders/x.csv")
    path = folder / "source"
    path.write_bytes(body)
    rounds = 20
    started = time.process_time()
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder) as work:
            refine_file(path, contract, Path(work))
    return (time.process_time() - started) / rounds


if __name__ == "__main__":
    sys.exit(main())
