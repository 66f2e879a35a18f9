"""A real Prefect server for tests and benchmarks that do not need the rest of the pipeline."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from deployment import PROJECT_ROOT
from deployment.local.environment import clean_environment
from deployment.local.ports import free_port
from deployment.local.prefect_server import (
    ServerOptions,
    client_environment,
    is_ready,
    keep_template,
    server_environment,
    start_from_template,
)
from deployment.local.services import Service
from tests.looking import looks

_T = TypeVar("_T")

_STARTS_SECONDS = 180


@dataclass(frozen=True)
class PrefectServer:
    """A running Prefect server.

    Attributes:
        home: the server's folder, which contains its log.
        url: the URL of its API.
        environment: environment variables for a process that uses the server.
        service: the server's process.
    """

    home: Path
    url: str
    environment: dict[str, str]
    service: Service

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API and return the response's JSON.

        Raises:
            httpx.HTTPStatusError: the server rejected the call.
            AssertionError: the server was busy for a minute.
        """

        def answer() -> httpx.Response | None:
            response = httpx.request(method, f"{self.url}{path}", json=body, timeout=60)
            busy = response.status_code == httpx.codes.SERVICE_UNAVAILABLE  # SQLite is locked, and clients must retry
            return None if busy else response

        response = self.eventually(answer, 60).raise_for_status()
        return response.json() if response.content else None

    def eventually(self, look: Callable[[], _T | None], seconds: float = 30) -> _T:
        """Poll `look` until it returns a truthy result, and return that. Raise AssertionError after a timeout."""
        for _ in looks(seconds):
            found = look()
            if found:
                return found
        raise AssertionError(f"waited {seconds:.0f} s in vain; {self.home / 'server.log'} has the log")

    def deploy(self, deployment: str, *tags: str) -> str:
        """Create a deployment, given as FLOW/DEPLOYMENT, whose runs nothing executes, and return its ID."""
        flow, _, name = deployment.partition("/")
        flow_id = self.call("POST", "/flows/", {"name": flow})["id"]
        return str(self.call("POST", "/deployments/", {"name": name, "flow_id": flow_id, "tags": tags})["id"])


@contextmanager
def running_prefect(folder: Path, name: str, options: ServerOptions = ServerOptions()) -> Iterator[PrefectServer]:
    """Run a Prefect server for the duration of the context, with its files in `folder`/`name`."""
    home, port, cache = folder / name, free_port(), PROJECT_ROOT / ".sluice" / "cache"
    (home / "home").mkdir(parents=True)
    clean = clean_environment(home / "home", folder)
    keep = not options.database_url and start_from_template(home, cache)
    service = Service(
        name=f"Prefect: {name}",
        command=[sys.executable, "-m", "deployment.local.serve_prefect", str(port)],
        environment=clean | server_environment(home, port, options),
        log_path=home / "server.log",
        records=folder / "processes",
    )
    service.start()
    try:
        service.wait_until(lambda: is_ready(home, port), _STARTS_SECONDS)
        if keep:
            keep_template(home, cache)
        environment = clean | client_environment(home, port)
        yield PrefectServer(home, f"http://127.0.0.1:{port}/api", environment, service)
    finally:
        service.stop()
