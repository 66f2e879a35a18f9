"""Starts and supervises the processes of the local cloud: the AWS emulator MiniStack, a Prefect server and a worker.

    with LocalCloud(Path(".sluice")) as cloud:
        cloud.client("s3").list_buckets()

The local cloud keeps all state in its state folder. It uses neither ~/.aws nor ~/.prefect nor the user's environment
variables for AWS and Prefect.
"""

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from deployment import PROJECT_ROOT
from deployment.local import ports, prefect_server
from deployment.local.endpoints import Endpoints, load_endpoints
from deployment.local.environment import clean_environment, docker_environment
from deployment.local.errors import EnvironmentMissing, ServiceDied
from deployment.local.prefect_server import ServerOptions
from deployment.local.processes import end_leftovers
from deployment.local.services import Service
from deployment.local.state_lock import StateLock
from deployment.local.state_version import claim_state
from deployment.project_commands import program, run_command

REGION = "eu-central-1"
DEFAULT_AWS_PORT = 4566
DEFAULT_PREFECT_PORT = 4200
START_DEADLINE_SECONDS = 90.0
_PREFECT_ATTEMPTS = 3
_WORKER_READY = "started!"  # the worker prints this; the server may still show a previous worker as online
_CLOUD_ENVIRONMENT = PROJECT_ROOT / ".venv-cloud"


class LocalCloud:
    """A local cloud with its state in `state_dir`.

    Args:
        state_dir: the state folder, which is created if it does not exist.
        aws_port, prefect_port: the port to use; if None, the last used port, the default port or any free port.
        wait_scale: a factor for the waits and retry intervals of state machines, which tests shorten.
        with_prefect: whether to start a Prefect server.
        prefect_options: the database and the password of the Prefect server.
        docker: whether to run tasks in a real Docker engine; if None, the variable SLUICE_DOCKER decides.
        emulator_extensions: modules that the AWS emulator loads in addition to its patches, for tests.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        aws_port: int | None = None,
        prefect_port: int | None = None,
        wait_scale: float = 1.0,
        with_prefect: bool = True,
        prefect_options: ServerOptions = ServerOptions(),
        docker: bool | None = None,
        emulator_extensions: Sequence[str] = (),
    ) -> None:
        self.state_dir = state_dir.resolve()
        self.region = REGION
        self.wait_scale = wait_scale
        self.docker = os.environ.get("SLUICE_DOCKER") == "1" if docker is None else docker
        self.cache_dir = PROJECT_ROOT / ".sluice" / "cache"  # contains a migrated Prefect database to copy
        self._aws_port, self._prefect_port = aws_port, prefect_port
        self._lock = StateLock(self.state_dir)
        self._records = self.state_dir / "processes"
        self._environment = clean_environment(self.state_dir / "home", self.state_dir / "tmp")
        self._endpoints: Endpoints | None = None
        self.emulator: Service | None = None
        self.prefect: Service | None = None
        self.worker: Service | None = None
        self._with_prefect = with_prefect
        self._prefect_options = prefect_options
        self._emulator_extensions = emulator_extensions
        self._keep_template = False

    # --- start and stop ---

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the AWS emulator and the Prefect server concurrently; return when both are ready.

        Raises:
            LocalCloudBusy: another process is using the state folder.
            StateOutdated: the state folder was created by a different minor version of Sluice.
            PortTaken: a requested port is in use.
            EnvironmentMissing: the AWS emulator or Prefect is not installed.
            ServiceDied, ServiceNotReady: a process ended or did not become ready; the message contains the end of its
                log.
        """
        self._check_installed()
        self._lock.acquire()
        try:
            claim_state(self.state_dir)
            self._prepare_folder()
            self._start_services()
        except BaseException:
            self.stop()
            raise

    def _check_installed(self) -> None:
        python = _CLOUD_ENVIRONMENT / "bin" / "python"
        if not python.exists():
            raise EnvironmentMissing(f"The AWS emulator is not installed: {python} does not exist. Run: make setup")
        if self._with_prefect and not Path(program("prefect")).is_absolute():
            raise EnvironmentMissing(
                f"Prefect is not installed in the Python environment of {sys.executable}. Run: make setup"
            )

    def _prepare_folder(self) -> None:
        end_leftovers(self._records)
        shutil.rmtree(self.state_dir / "tasks", ignore_errors=True)
        shutil.rmtree(self.state_dir / "cloud" / "tmp", ignore_errors=True)
        for folder in ("home", "tmp", "cloud", "logs"):
            (self.state_dir / folder).mkdir(parents=True, exist_ok=True)

    def _start_services(self) -> None:
        last = load_endpoints(self.state_dir)
        prefect_port = self._begin_prefect(last) if self._with_prefect else None
        aws_port = self._start_emulator(last)
        prefect_port = self._await_prefect(prefect_port, last) if prefect_port else None
        self._endpoints = Endpoints(
            state_dir=self.state_dir,
            region=self.region,
            aws_endpoint_url=f"http://{ports.HOST}:{aws_port}",
            prefect_api_url=f"http://{ports.HOST}:{prefect_port}/api" if prefect_port else "",
            prefect_auth_string=self._prefect_options.auth_string,
            outputs=last.outputs if last else {},
        )
        self._endpoints.save()

    def stop(self) -> None:
        """Stop all processes of the local cloud, and release the state folder."""
        try:
            # The worker stops first, because its runs need the other two; Prefect stops last, because tasks need it.
            for service in (self.worker, self.emulator, self.prefect):
                if service is not None:
                    service.stop()
            if self._lock.held:
                end_leftovers(self._records)
        finally:
            self.worker = self.emulator = self.prefect = None
            self._lock.release()

    def check(self) -> None:
        """Raise ServiceDied if a process of the local cloud ended unexpectedly."""
        for service in (self.emulator, self.prefect, self.worker):
            if service is not None:
                service.check()

    def _begin(
        self, name: str, log: str, command: list[str], environment: dict[str, str], *, grace_seconds: float = 10
    ) -> Service:
        log_path = self.state_dir / "logs" / f"{log}.log"
        service = Service(name, command, environment, log_path, self._records, grace_seconds)
        service.start()
        return service

    # --- the AWS emulator ---

    def _start_emulator(self, last: Endpoints | None) -> int:
        wanted = [DEFAULT_AWS_PORT, 0]
        if self._aws_port is not None:
            wanted = [ports.choose(self._aws_port, [], "the AWS emulator")]
        elif last is not None:
            wanted.insert(0, urlsplit(last.aws_endpoint_url).port or 0)
        ready = self.state_dir / "cloud" / "ready.json"
        ready.unlink(missing_ok=True)
        command = [
            *(str(_CLOUD_ENVIRONMENT / "bin" / "python"), "-m", "deployment.local.emulator"),
            *("--state", str(self.state_dir), "--region", self.region),
            *("--ports", *map(str, wanted)),
            *("--task-path", self._environment["PATH"], "--wait-scale", str(self.wait_scale)),
            *(["--extensions", *self._emulator_extensions] if self._emulator_extensions else []),
            *(["--docker"] if self.docker else []),
        ]
        environment = self._environment | (docker_environment() if self.docker else {})
        self.emulator = self._begin("AWS emulator", "cloud", command, environment, grace_seconds=25)
        self.emulator.wait_until(ready.exists, START_DEADLINE_SECONDS)
        return int(json.loads(ready.read_text())["port"])

    # --- Prefect ---

    def _begin_prefect(self, last: Endpoints | None) -> int:
        preferred = [DEFAULT_PREFECT_PORT]
        if last is not None and last.prefect_api_url:
            preferred.insert(0, urlsplit(last.prefect_api_url).port or DEFAULT_PREFECT_PORT)
        port = ports.choose(self._prefect_port, preferred, "the Prefect server")
        home = self.state_dir / "prefect"
        if not self._prefect_options.database_url:
            self._keep_template = prefect_server.start_from_template(home, self.cache_dir)
        command = [sys.executable, "-m", "deployment.local.serve_prefect", str(port)]
        environment = self._environment | prefect_server.server_environment(home, port, self._prefect_options)
        self.prefect = self._begin("Prefect server", "prefect", command, environment)
        return port

    def _await_prefect(self, port: int, last: Endpoints | None) -> int:
        """Wait until the Prefect server is ready, and return its port. If another program has taken the port in the
        meantime, start the server on a different port."""
        for attempt in range(1, _PREFECT_ATTEMPTS + 1):
            try:
                self._wait_for_prefect(port)
                break
            except ServiceDied:
                taken = not ports.is_free(port)
                if not taken or self._prefect_port is not None or attempt == _PREFECT_ATTEMPTS:
                    raise
                port = self._begin_prefect(last)
        if self._keep_template:
            prefect_server.keep_template(self.state_dir / "prefect", self.cache_dir)
        return port

    def _wait_for_prefect(self, port: int) -> None:
        if self.prefect is not None:
            home, auth_string = self.state_dir / "prefect", self._prefect_options.auth_string
            self.prefect.wait_until(lambda: prefect_server.is_ready(home, port, auth_string), START_DEADLINE_SECONDS)

    def start_worker(self, pool: str, environment: dict[str, str], *, role_arn: str) -> None:
        """Start a Prefect worker for a process work pool, and wait until it is ready.

        Args:
            environment: variables for the worker's flow runs, in addition to those of the local cloud.
            role_arn: the role whose credentials the flow runs get.
        """
        command = [
            *(program("prefect"), "worker", "start", "--pool", pool, "--type", "process"),
            *("--name", "local", "--install-policy", "never"),
        ]
        self.worker = self._begin(
            "Prefect worker", "worker", command, self.endpoints.environment_of(role_arn) | environment
        )
        log = self.worker.log_path
        self.worker.wait_until(lambda: _WORKER_READY in log.read_text(), START_DEADLINE_SECONDS)

    # --- URLs and clients ---

    @property
    def endpoints(self) -> Endpoints:
        """Return the URLs of the local cloud, which must have been started."""
        if self._endpoints is None:
            raise RuntimeError("the local cloud was not started")
        return self._endpoints

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client for the AWS emulator, with the credentials of its root user."""
        return self.endpoints.client(service, **options)

    def save_outputs(self, outputs: dict[str, str]) -> None:
        """Save the outputs of the deployed stack, so that other commands can read them."""
        self._endpoints = dataclasses.replace(self.endpoints, outputs=dict(outputs))
        self._endpoints.save()

    def mark_ready(self) -> None:
        """Record that the pipeline is deployed, so that other commands use it."""
        self._endpoints = dataclasses.replace(self.endpoints, ready=True)
        self._endpoints.save()

    def run(self, command: list[str], *, timeout_seconds: float, environment: dict[str, str] | None = None) -> str:
        """Run a project command that uses this local cloud as the emulator's root user; return its output.

        Raises:
            CommandFailed: the command failed or took too long; the message contains the end of its output.
        """
        return run_command(command, self.endpoints.environment | (environment or {}), timeout_seconds)
