"""Runs a task's command as a process where there is no Docker engine; MiniStack's ECS needs one.

This is the part of docker-py that MiniStack's services/ecs.py and core/container_reaper.py call. A task sees a
container: only the container's environment, a separate home and TMPDIR that are deleted with it, SIGTERM to the main
process and SIGKILL to all processes after the stop timeout, exit codes of 128 plus the signal.
There is no isolation: the process sees the machine's files and network.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
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
from typing import Any

from deployment.local.processes import forget, kill_group, remember

# MiniStack looks up its own container by this name, for its address.
OWN_HOST_NAME = "sluice-embedded-cloud"
STOP_TIMEOUT_LABEL = "sluice.stop-timeout-seconds"
_NETWORK = "loopback"
_LOG_POLL_SECONDS = 0.05
_LOGS_KEPT = 100
_NEVER = "0001-01-01T00:00:00Z"  # Docker's value for a time in the future


class APIError(Exception):
    """The engine refused: the command does not exist, or the container to remove is running."""


class NotFound(APIError):
    """There is no such container."""


class ImageNotFound(NotFound):
    """There is no such image."""


@dataclass(frozen=True)
class ProcessHost:
    """Where containers' processes run.

    Attributes:
        working_directory: replaces the image's content: the project's root.
        path: the PATH of every container.
        region: AWS_REGION, which Fargate sets.
        folder: has a folder per container with its home and its TMPDIR.
        logs: the folder of the containers' outputs, which outlive them.
        records: the folder of process records (deployment/local/processes.py).
    """

    working_directory: Path
    path: str
    region: str
    folder: Path
    logs: Path
    records: Path


class Container:
    """One container: a process that leads its session, its output and its exit code."""

    def __init__(self, engine: Containers, image: str, options: dict[str, Any]) -> None:
        self.id = uuid.uuid4().hex * 2
        self.name: str = options.get("name") or f"container-{self.id[:8]}"
        self.image = image
        self.labels: dict[str, str] = dict(options.get("labels") or {})
        self._code = engine.code_of(image) or engine.host.working_directory
        self._network: str = options.get("network") or _NETWORK
        self._engine, self._host = engine, engine.host
        self._folder = self._host.folder / self.id[:12]
        self._output = self._host.logs / f"{self.name}-{self.id[:4]}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._created, self._finished = _now(), _NEVER

    def start(self, command: list[str] | str | None, environment: dict[str, str]) -> None:
        """Start the process.

        Raises:
            APIError: there is no command, or it cannot be run.
        """
        if not command:
            raise APIError("the task definition's container has no command, and there is no image to ask for one")
        home, temporary = self._folder / "home", self._folder / "tmp"
        home.mkdir(parents=True)
        temporary.mkdir()
        _make_room(self._host.logs)
        try:
            with self._output.open("wb") as output:
                self._process = subprocess.Popen(
                    command if isinstance(command, list) else command.split(),
                    cwd=self._code,
                    env=self._environment(home, temporary) | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            self._ended.set()
            raise APIError(f"cannot run {command!r}: {error}") from error
        remember(self._host.records, self._process.pid, f"task {self.name}")
        reaper = threading.Thread(
            target=self._reap, args=(self._process,), daemon=True, name=f"container-{self.id[:8]}"
        )
        reaper.start()

    @property
    def pid(self) -> int | None:
        """The id of the main process; None before it is started."""
        return self._process.pid if self._process else None

    def _environment(self, home: Path, temporary: Path) -> dict[str, str]:
        return {
            "PATH": self._host.path,
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "AWS_REGION": self._host.region,
            "AWS_DEFAULT_REGION": self._host.region,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            "AWS_EC2_METADATA_DISABLED": "true",  # a task on Fargate does not reach it either
        }

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        kill_group(process.pid)  # a container ends with its main process
        forget(self._host.records, process.pid)
        self._finished = _now()
        self._ended.set()

    @property
    def exit_code(self) -> int | None:
        """The exit code, 128 plus the signal's number for a process that a signal ended; None while it runs."""
        if not self._ended.is_set() or self._process is None:
            return None
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    @property
    def status(self) -> str:
        """The state in Docker's terms: created, running or exited."""
        if self._process is None:
            return "created"
        return "exited" if self._ended.is_set() else "running"

    @property
    def attrs(self) -> dict[str, Any]:
        """The part of `docker inspect` that MiniStack reads."""
        return {
            "Id": self.id,
            "Created": self._created,
            "State": {
                "Status": self.status,
                "ExitCode": self.exit_code or 0,
                "FinishedAt": self._finished,
            },
            "Labels": self.labels,
            "NetworkSettings": {"Networks": {self._network: {"IPAddress": "127.0.0.1"}}},
        }

    def reload(self) -> None:
        """Do nothing: this object is always current."""

    def wait(self, timeout: float | None = None, **_: Any) -> dict[str, Any]:
        """Wait until it ends; raise TimeoutError after `timeout` seconds."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.name} still runs after {timeout} seconds")
        return {"StatusCode": self.exit_code or 0, "Error": None}

    def kill(self, signal: str | int | None = None) -> None:
        """Send a signal, by default SIGKILL, to the main process."""
        if self._process is None or self._ended.is_set():
            raise APIError(f"{self.name} is not running")
        self._process.send_signal(_signal_number(signal))

    def stop(self, timeout: float = 10) -> None:
        """Send SIGTERM, and SIGKILL after the stop timeout.

        MiniStack always passes 5 seconds; the task definition's stopTimeout is in a label (task_stop.py) and overrides
        that.
        """
        if self._process is None or self._ended.is_set():
            return
        self._process.terminate()
        if not self._ended.wait(float(self.labels.get(STOP_TIMEOUT_LABEL, timeout))):
            kill_group(self._process.pid)
            self._ended.wait()

    def remove(self, v: bool = False, force: bool = False, **_: Any) -> None:  # noqa: ARG002 (docker-py's names)
        """Delete it and its files; its output is kept, as it may still be read.

        Raises:
            APIError: it runs, and `force` is false.
        """
        if self.status == "running":
            if not force:
                raise APIError(f"{self.name} is running: stop it before removing it, or force it")
            self.kill()
            self._ended.wait()
        self._engine.drop(self)
        shutil.rmtree(self._folder, ignore_errors=True)

    def logs(
        self, *, stream: bool = False, follow: bool | None = None, tail: str | int = "all", **_: Any
    ) -> Iterator[bytes] | bytes:
        """Return its output; with `stream` as an iterator of whole lines until it ends."""
        if stream:
            return self._lines(self._output.open("rb"), follow=True if follow is None else follow)
        lines = self._output.read_bytes().splitlines(keepends=True) if self._output.exists() else []
        return b"".join(lines if tail == "all" else lines[-int(tail) :])

    def _lines(self, output: Any, *, follow: bool) -> Iterator[bytes]:
        partial = b""
        with output:
            while True:
                # Checked before reading, so that everything written until then is read in this pass.
                ended = self._ended.is_set() or not follow
                for line in iter(output.readline, b""):
                    partial += line
                    if partial.endswith(b"\n"):
                        yield partial
                        partial = b""
                if ended:
                    break
                self._ended.wait(_LOG_POLL_SECONDS)
        if partial:
            yield partial


@dataclass
class Containers:
    """The engine's containers: `client.containers` of docker-py.

    Attributes:
        host: where their processes run.
        code_of: returns the folder with an image's code; None for the project's folder.
    """

    host: ProcessHost
    code_of: Callable[[str], Path | None] = lambda _: None
    _known: dict[str, Container] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def run(
        self,
        image: str,
        command: list[str] | str | None = None,
        *,
        environment: dict[str, str] | list[str] | None = None,
        **options: Any,
    ) -> Container:
        """Start a container and return at once (docker-py's `detach=True`).

        Raises:
            APIError: it cannot be started.
        """
        if self._closed:
            raise APIError("the embedded cloud is shutting down")
        container = Container(self, image, options)
        with self._lock:
            self._known[container.id] = container
        try:
            container.start(command, _as_dict(environment))
        except APIError:
            container.remove()
            raise
        return container

    def get(self, container_id: str) -> Container | types.SimpleNamespace:
        """Return a container by id, by the beginning of an id, or by name.

        Raises:
            NotFound: there is none.
        """
        if container_id == OWN_HOST_NAME:
            # MiniStack gives tasks the address of "its own container" on this network.
            return types.SimpleNamespace(
                attrs={"NetworkSettings": {"Networks": {_NETWORK: {"IPAddress": "127.0.0.1"}}}}
            )
        with self._lock:
            known = list(self._known.values())
        for container in known:
            if container_id and (container.id.startswith(container_id) or container.name == container_id):
                return container
        raise NotFound(f"no such container: {container_id!r}")

    def list(self, *, all: bool = False, filters: dict[str, Any] | None = None, **_: Any) -> list[Container]:
        """Return the running containers, with `all` every container, that have the labels of `filters`."""
        wanted = (filters or {}).get("label", [])
        labels = [wanted] if isinstance(wanted, str) else wanted
        with self._lock:
            known = [*self._known.values()]
        return [
            container
            for container in known
            if (all or container.status == "running") and _has_labels(container, labels)
        ]

    def drop(self, container: Container) -> None:
        """Remove a container from the list."""
        with self._lock:
            self._known.pop(container.id, None)

    def close(self, grace_seconds: float) -> None:
        """Start no more containers, and end the running ones: SIGTERM to all, SIGKILL after `grace_seconds`."""
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


class Images:
    """`client.images` of docker-py: the project's environment serves as every image."""

    def get(self, name: str) -> types.SimpleNamespace:
        """Return an image of this name."""
        return types.SimpleNamespace(id=name, tags=[name])


@dataclass
class Client:
    """The client that `docker.from_env()` returns."""

    containers: Containers
    images: Images = field(default_factory=Images)

    def ping(self) -> bool:
        """Return True: the engine answers."""
        return True


def install(host: ProcessHost) -> Client:
    """Replace the module `docker` in this process; return the client."""
    client = Client(Containers(host))
    errors = types.ModuleType("docker.errors")
    errors.__dict__.update(APIError=APIError, NotFound=NotFound, ImageNotFound=ImageNotFound, DockerException=APIError)
    docker = types.ModuleType("docker")
    docker.__dict__.update(from_env=lambda **_: client, errors=errors)
    sys.modules["docker"], sys.modules["docker.errors"] = docker, errors
    return client


def _has_labels(container: Container, wanted: list[str]) -> bool:
    """Whether a container has every label of `wanted`, each "name" or "name=value"."""
    return all(
        container.labels.get(name) == value if separator else name in container.labels
        for name, separator, value in (label.partition("=") for label in wanted)
    )


def _as_dict(environment: dict[str, str] | list[str] | None) -> dict[str, str]:
    if isinstance(environment, dict):
        return {name: str(value) for name, value in environment.items()}
    return dict(entry.split("=", 1) for entry in environment or [])


def _make_room(logs: Path) -> None:
    """Keep only the newest outputs: a busy cloud runs thousands of tasks."""
    logs.mkdir(parents=True, exist_ok=True)
    newest_first = sorted(logs.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest_first[_LOGS_KEPT:]:
        path.unlink(missing_ok=True)


def _signal_number(wanted: str | int | None) -> int:
    if wanted is None:
        return signal.SIGKILL
    return signal.Signals[wanted] if isinstance(wanted, str) else wanted


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
