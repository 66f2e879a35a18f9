"""Runs a task's command as a local process, so that MiniStack's ECS needs no Docker engine.

This module implements the part of docker-py that MiniStack's services/ecs.py and core/container_reaper.py call. To a
task, the process looks like a container. It has only the container's environment variables, and its HOME and TMPDIR are
deleted afterwards. A stop sends SIGTERM to the main process and, after the stop timeout, SIGKILL to all processes. If a
signal ends the process, the exit code is 128 plus the signal's number. However, the process is not isolated: it can use
the machine's files and network.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from signal import Signals
from typing import Any

from deployment.local.processes import forget, kill_group, remember

# MiniStack looks up its own container by this name in order to find its IP address.
OWN_HOST_NAME = "sluice-embedded-cloud"
STOP_TIMEOUT_LABEL = "sluice.stop-timeout-seconds"
_ON_LOOPBACK = {"Networks": {"loopback": {"IPAddress": "127.0.0.1"}}}
_LOG_POLL_SECONDS = 0.05
_LOGS_KEPT = 100
_NEVER = "0001-01-01T00:00:00Z"  # Docker's value for a time that has not come yet


class APIError(Exception):
    """A request to the container engine failed, because the command cannot be run or the container is in the wrong
    state."""


class NotFound(APIError):
    """The requested container does not exist."""


class Container:
    """A simulated container: a process that has its own session, with its output and its exit code."""

    def __init__(self, engine: Containers, image: str, options: dict[str, Any]) -> None:
        self.id = uuid.uuid4().hex * 2
        self.name: str = options.get("name") or f"container-{self.id[:8]}"
        self.image = image
        self.labels: dict[str, str] = dict(options.get("labels") or {})
        self._code = engine.code_of(image) or Path.cwd()
        self._engine = engine
        self._folder = engine.state / "tasks" / self.id[:12]
        self._output = engine.state / "logs" / "tasks" / f"{self.name}-{self.id[:4]}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._created, self._finished = _now(), _NEVER

    def start(self, command: list[str] | None, environment: dict[str, str]) -> None:
        """Start the process. Raise APIError if there is no command, or if it cannot be run."""
        if not command:
            raise APIError("the container definition has no command, and the image's command is not used")
        home, temporary = self._folder / "home", self._folder / "tmp"
        home.mkdir(parents=True)
        temporary.mkdir()
        self._output.parent.mkdir(parents=True, exist_ok=True)
        # Only the newest outputs are kept, because a busy local cloud runs thousands of tasks.
        outputs = sorted(self._output.parent.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in outputs[_LOGS_KEPT:]:
            path.unlink(missing_ok=True)
        try:
            with self._output.open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    cwd=self._code,
                    env=self._environment(home, temporary) | {name: str(value) for name, value in environment.items()},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            self._ended.set()
            raise APIError(f"cannot run {command!r}: {error}") from error
        remember(self._engine.records, self._process.pid, f"task {self.name}")
        threading.Thread(target=self._reap, args=(self._process,), daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Return the process ID of the main process; None before it is started."""
        return self._process.pid if self._process else None

    def _environment(self, home: Path, temporary: Path) -> dict[str, str]:
        return {
            "PATH": self._engine.path,
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "AWS_REGION": self._engine.region,
            "AWS_DEFAULT_REGION": self._engine.region,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            "AWS_EC2_METADATA_DISABLED": "true",  # a task on Fargate cannot reach EC2's metadata either
        }

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        kill_group(process.pid)  # a container ends with its main process
        forget(self._engine.records, process.pid)
        self._finished = _now()
        self._ended.set()

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, which is 128 plus the signal's number if a signal ended the process; None while it is
        running."""
        if not self._ended.is_set() or self._process is None:
            return None
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    @property
    def status(self) -> str:
        """Return the state as Docker names it: created, running or exited."""
        if self._process is None:
            return "created"
        return "exited" if self._ended.is_set() else "running"

    @property
    def attrs(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "Created": self._created,
            "State": {"Status": self.status, "ExitCode": self.exit_code or 0, "FinishedAt": self._finished},
            "Labels": self.labels,
            "NetworkSettings": _ON_LOOPBACK,
        }

    def reload(self) -> None:
        """Do nothing, because this object is always up to date."""

    def wait(self, timeout: float | None = None, **_: Any) -> dict[str, Any]:
        """Wait until the container ends, and return its exit code as docker-py does. Raise TimeoutError after `timeout`
        seconds."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.name} is still running after {timeout} seconds")
        return {"StatusCode": self.exit_code or 0, "Error": None}

    def kill(self, signal: str = "SIGKILL") -> None:
        if self._process is None or self._ended.is_set():
            raise APIError(f"{self.name} is not running")
        self._process.send_signal(Signals[signal])

    def stop(self, timeout: float = 10) -> None:
        """Send SIGTERM and, after the stop timeout, SIGKILL. The stop timeout is the stopTimeout in the task
        definition, which task_stop.py puts into a label. Without that label it is `timeout`, which MiniStack always
        sets to 5 seconds."""
        if self._process is None or self._ended.is_set():
            return
        self._process.terminate()
        if not self._ended.wait(float(self.labels.get(STOP_TIMEOUT_LABEL, timeout))):
            kill_group(self._process.pid)
            self._ended.wait()

    def remove(self, v: bool = False, force: bool = False, **_: Any) -> None:  # noqa: ARG002 (docker-py's names)
        """Remove the container and its files, but keep its output, which may still be read. If the container is
        running, kill it if `force` is set, otherwise raise APIError."""
        if self.status == "running":
            if not force:
                raise APIError(f"{self.name} is running: stop it before removing it, or use force")
            self.kill()
            self._ended.wait()
        self._engine.drop(self)
        shutil.rmtree(self._folder, ignore_errors=True)

    def logs(self, *, stream: bool = False, tail: int | None = None, **_: Any) -> Iterator[bytes] | bytes:
        """Return the output or, if `tail` is given, its last lines. If `stream` is set, return an iterator over whole
        lines that ends when the container ends."""
        if stream:
            return self._lines()
        lines = self._output.read_bytes().splitlines(keepends=True)
        return b"".join(lines if tail is None else lines[-tail:])

    def _lines(self) -> Iterator[bytes]:
        partial, ended = b"", False
        with self._output.open("rb") as output:
            while not ended:
                # This is checked before reading, so that everything written before the end is read in this pass.
                ended = self._ended.wait(_LOG_POLL_SECONDS)
                for line in iter(output.readline, b""):
                    partial += line
                    if partial.endswith(b"\n"):
                        yield partial
                        partial = b""
        if partial:
            yield partial


@dataclass
class Containers:
    """All simulated containers, with the interface of docker-py's `client.containers`."""

    state: Path  # the local cloud's state folder, for the containers' files, outputs and process records
    path: str  # the PATH of every container
    region: str  # the value of AWS_REGION, which Fargate sets
    # returns the folder with an image's code; None for the working directory, which is the project's root folder
    code_of: Callable[[str], Path | None] = lambda _: None
    _known: dict[str, Container] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    @property
    def records(self) -> Path:
        return self.state / "processes"

    def run(
        self,
        image: str,
        command: list[str] | None = None,
        *,
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> Container:
        """Start a container, and return it without waiting for its end, as docker-py does with `detach=True`. Raise
        APIError if it cannot be started."""
        if self._closed:
            raise APIError("the AWS emulator is shutting down")
        container = Container(self, image, options)
        with self._lock:
            self._known[container.id] = container
        try:
            container.start(command, environment or {})
        except APIError:
            container.remove()
            raise
        return container

    def get(self, container_id: str) -> Container | types.SimpleNamespace:
        """Return the container with this name or ID, or whose ID begins with `container_id`. Raise NotFound if there is
        none."""
        if container_id == OWN_HOST_NAME:
            # MiniStack gives tasks the IP address of "its own container" on this network.
            return types.SimpleNamespace(attrs={"NetworkSettings": _ON_LOOPBACK})
        with self._lock:
            known = list(self._known.values())
        for container in known:
            if container_id and (container.id.startswith(container_id) or container.name == container_id):
                return container
        raise NotFound(f"no such container: {container_id!r}")

    def list(self, *, all: bool = False, filters: dict[str, Any] | None = None, **_: Any) -> list[Container]:
        """Return the containers that have the labels in `filters` and, unless `all` is set, are running."""
        wanted = (filters or {}).get("label", [])
        labels = {wanted} if isinstance(wanted, str) else set(wanted)
        with self._lock:
            known = [*self._known.values()]
        return [
            container
            for container in known
            if (all or container.status == "running")
            and labels <= {*container.labels, *(f"{name}={value}" for name, value in container.labels.items())}
        ]

    def drop(self, container: Container) -> None:
        with self._lock:
            self._known.pop(container.id, None)

    def close(self, grace_seconds: float) -> None:
        """End all running containers, and do not start any more. They get SIGTERM and, after `grace_seconds`,
        SIGKILL."""
        self._closed = True
        running = self.list()
        for container in running:
            with contextlib.suppress(APIError):
                container.kill("SIGTERM")
        deadline = time.monotonic() + grace_seconds
        for container in running:
            with contextlib.suppress(TimeoutError):
                container.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(APIError):
                container.remove(force=True)


@dataclass
class Client:
    """The replacement for the client that `docker.from_env()` returns."""

    containers: Containers


def install(containers: Containers) -> Client:
    """Replace the module `docker` in this process with one that uses `containers`; return its client."""
    client = Client(containers)
    docker = types.ModuleType("docker")
    docker.__dict__.update(from_env=lambda **_: client)
    sys.modules["docker"] = docker
    return client


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
