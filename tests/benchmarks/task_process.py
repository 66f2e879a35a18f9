"""Runs the container's process with its queue, its buckets and a Prefect server, and measures what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx

from deployment import PROJECT_ROOT
from deployment.local.environment import aws_environment, clean_environment
from deployment.local.ports import free_port
from lambda_trigger.message import UploadMessage
from tests.benchmarks.cloud import LANDING, PUBLISHED, VERSION_ID, LandingObject
from tests.benchmarks.processes import cpu_seconds, image_allocators, memory_mb
from tests.looking import looks
from tests.prefect_server import running_prefect

_LOOK_SECONDS = 0.3
_STACK, _REGION = "bench", "us-east-1"


@dataclass(frozen=True)
class Outcome:
    """What a task logged and cost.

    Attributes:
        lines: the lines of its log.
        first_upload: the CPU seconds and wall seconds from its start until it began its first upload.
        cpu: its CPU seconds.
        peak_mb: its peak resident memory.
        together_mb: the peak memory of its process and its child processes together, measured at intervals.
        disk_mb: the peak disk space of its files, measured at intervals.
    """

    code: int
    lines: list[dict[str, Any]]
    first_upload: tuple[float, float]
    cpu: float
    wall: float
    peak_mb: float
    together_mb: float
    disk_mb: float

    def done(self) -> list[dict[str, Any]]:
        """Return the log lines that report an upload with a receipt."""
        return [line for line in self.lines if line["event"] == "done"]


@dataclass(frozen=True)
class Stage:
    """The queue, the buckets and the Prefect server that a task needs. `files` is the folder with the content of the
    landing bucket's objects."""

    files: Path
    url: str
    environment: dict[str, str]

    def run(self, keys: list[str], settings: Mapping[str, str] = {}) -> Outcome:
        """Send a message for each object key to the queue, and run a task until it ends."""
        sqs, queue_url = self._client("sqs"), self.environment["SLUICE_QUEUE_URL"]
        for number, key in enumerate(keys):
            size = LandingObject(self.files, key.rpartition("/")[2]).size
            message = UploadMessage(
                bucket=LANDING,
                key=key,
                version_id=VERSION_ID,
                etag="e",
                size_bytes=size,
                sequencer=f"{time.time_ns() + number:016X}",
                event_time="2026-01-01T00:00:00.000Z",
            )
            sqs.send_message(QueueUrl=queue_url, MessageBody=message.to_json())
        command = [sys.executable, "-m", "flows.drain_queue"]
        began, environment = time.monotonic(), self.environment | dict(settings)
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        return _watched(process, began, Path(environment["TMPDIR"]))

    def _client(self, service: str) -> Any:
        make_client: Callable[..., Any] = boto3.client  # its overloads need literal service names
        return make_client(
            service,
            endpoint_url=self.url,
            region_name=_REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Run the benchmarks' local cloud, and a Prefect server with Sluice's deployment."""
    with ExitStack() as stack:
        prefect = stack.enter_context(running_prefect(folder, "prefect"))
        prefect.deploy(f"process-upload/{_STACK}")
        (files := folder / "landing").mkdir()
        ministack, port = free_port(), free_port()
        clean = clean_environment(folder, folder)
        for command, more in (
            ([PROJECT_ROOT / ".venv-cloud" / "bin" / "ministack"], {"GATEWAY_PORT": str(ministack)}),
            ([sys.executable, "-m", "tests.benchmarks.cloud", str(port), str(files), str(ministack)], {}),
        ):
            log = stack.enter_context((folder / "cloud.log").open("a"))
            environment = clean | {"IOT_MTLS_ENABLED": "0", "PYTHONPATH": str(PROJECT_ROOT)} | more
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        url = f"http://127.0.0.1:{port}"
        for _ in looks(120):
            if _is_up(url):
                break
        environment = prefect.environment | aws_environment(url, _REGION)
        found = Stage(files, url, environment)
        for bucket in (LANDING, PUBLISHED):
            found._client("s3").create_bucket(Bucket=bucket)
        queue_url = found._client("sqs").create_queue(QueueName="uploads")["QueueUrl"]
        environment |= {
            **image_allocators(),
            "PYTHONPATH": str(PROJECT_ROOT),
            "SLUICE_STACK": _STACK,
            "SLUICE_LANDING_BUCKET": LANDING,
            "SLUICE_PUBLISHED_BUCKET": PUBLISHED,
            "SLUICE_QUEUE_URL": queue_url,
            "SLUICE_RECEIVE_WAIT_SECONDS": "1",
            "SLUICE_LIVE_BACKLOG": "1000",
        }
        yield found


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.HTTPError:
        return False


def _watched(process: subprocess.Popen[str], began: float, folder: Path) -> Outcome:
    lines: list[dict[str, Any]] = []
    first, cpu, peak, together, disk = (0.0, 0.0), 0.0, 0.0, [0.0], [0.0]

    def watch() -> None:
        while process.poll() is None:
            together[0] = max(together[0], memory_mb(process.pid))
            disk[0] = max(disk[0], _disk_mb(folder))
            time.sleep(_LOOK_SECONDS)

    watching = threading.Thread(target=watch)
    watching.start()
    assert process.stdout is not None
    for text in process.stdout:
        line = json.loads(text)
        lines.append(line)
        if line["event"] == "received" and first == (0.0, 0.0):
            first = cpu_seconds(process.pid), time.monotonic() - began
        # The last lines come just before the end.
        cpu, peak = max(cpu, cpu_seconds(process.pid)), max(peak, peak_mb(process.pid))
    code = process.wait()
    watching.join()
    return Outcome(code, lines, first, cpu, time.monotonic() - began, peak, together[0], disk[0])


def _disk_mb(folder: Path) -> float:
    """Return how much disk space in MB the files of uploads in a folder take."""
    size = 0
    with suppress(FileNotFoundError):  # files may be deleted in the meantime
        for path in folder.glob("sluice-*/**/*"):
            size += path.lstat().st_blocks * 512
    return size / 1e6


def peak_mb(pid: int) -> float:
    """Return the peak memory of a process in MB, or 0 if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return int((status.partition("VmHWM:")[2].split() or ["0"])[0]) * 1024 / 1e6
