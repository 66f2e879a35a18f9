"""Measures how many requests and CPU seconds an upload costs a Prefect server, on SQLite and on PostgreSQL.

    python -m tests.benchmarks.bench_prefect [--rounds 3] [--clients 2] [--runs 15]

Each upload is shown as Sluice's tasks show it: live, as a flow run with its stages, or recorded in bulk. Both servers
run at the same time and are measured alternately. So other load on the machine affects both, and their ratio is more
reliable than the absolute numbers. A round ends when the server shows all runs and task runs as
completed. The work on the data is left out. The clients share the machine with the server, but its CPU seconds per
upload show what it could handle alone. The first upload of a task needs a few more requests
(tests/prefect/test_live_run.py).
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx

from deployment import PROJECT_ROOT
from deployment.local.prefect_server import ServerOptions, database
from deployment.local.services import Service
from deployment.project_commands import program
from tests.benchmarks.flow_run_client import BULK, LIVE
from tests.benchmarks.processes import cpu_seconds
from tests.infra.postgresql import programs, running_postgresql
from tests.prefect_server import running_prefect

_DEADLINE_SECONDS = 600.0
_TASKS_PER_RUN = 4
_BULK_FACTOR = 10


@dataclass
class Measured:
    """A Prefect server that is measured.

    Attributes:
        environment: the environment variables of its clients.
        database_pid: the ID of the database's first process; None if the database runs in the server's process.
        size_bytes: a function that returns the size of the database, and the part of it that events take (0 if
            unknown).
        live: the number of uploads that it shows as live runs.
        rounds: the results of each round, by the kind of recording. Per upload: requests, CPU seconds of the server and
            of its database, uploads per minute, growth of the database in KiB, and growth of its events in KiB.
    """

    name: str
    url: str
    environment: dict[str, str]
    server: Service
    database_pid: int | None
    size_bytes: Callable[[], tuple[int, int]]
    live: int = 0
    rounds: dict[str, list[tuple[float, ...]]] = field(default_factory=lambda: defaultdict(list))

    def count(self, what: str, state: str) -> int:
        """Return the number of flow_runs or task_runs that are in a state."""
        body = {what: {"state": {"type": {"any_": [state]}}}}
        answer = httpx.post(f"{self.url}/{what}/count", json=body, timeout=60)
        return int(answer.raise_for_status().json())

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU seconds that the server and its database have used so far."""
        return cpu_seconds(self.server.pid), cpu_seconds(self.database_pid)


@contextmanager
def measured(folder: Path, name: str, options: ServerOptions, database_pid: int | None) -> Iterator[Measured]:
    """Run a separate Prefect server with Sluice's work pool, deployments and automations."""
    with running_prefect(folder, name, options) as running:
        _deploy(running.environment)
        size = _size_of_postgresql(options.database_url) if database_pid else _size_of_sqlite(database(running.home))
        yield Measured(name, running.url, running.environment, running.service, database_pid, size)


_CREATE_POOL = """
from prefect.client.orchestration import get_client

from blocks.prefect_names import PrefectNames
from deployment.prefect_setup.work_pools import LOCAL, work_pool

with get_client(sync_client=True) as client:
    client.create_work_pool(work_pool(PrefectNames("sluice"), LOCAL, {}))
"""
_APPLY_AUTOMATIONS = """
from blocks.prefect_names import PrefectNames
from deployment.prefect_setup.automations import apply, declared

print(*apply(PrefectNames("sluice"), declared(PrefectNames("sluice"))), sep="\\n")
"""


def _deploy(environment: dict[str, str]) -> None:
    """Create Sluice's work pool, deployments and automations on a Prefect server."""
    settings = {
        "SLUICE_STACK": "sluice",
        "SLUICE_WORK_POOL": "sluice-local",
        "SLUICE_CODE_DIRECTORY": str(PROJECT_ROOT),
    }
    for command in (
        [sys.executable, "-c", _CREATE_POOL],
        [program("prefect"), "--no-prompt", "deploy", "--all"],
        [sys.executable, "-c", _APPLY_AUTOMATIONS],
    ):
        subprocess.run(command, cwd=PROJECT_ROOT, env=environment | settings, check=True, capture_output=True)


def _size_of_sqlite(path: Path) -> Callable[[], tuple[int, int]]:
    def size() -> tuple[int, int]:
        with sqlite3.connect(path) as connection:
            (pages,), (page_bytes,) = (
                connection.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "page_size")
            )
        return int(pages) * int(page_bytes), 0

    return size


def _size_of_postgresql(url: str) -> Callable[[], tuple[int, int]]:
    async def size() -> tuple[int, int]:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            sizes = await connection.fetchrow(
                "SELECT pg_database_size(current_database()), "
                "pg_total_relation_size('events') + pg_total_relation_size('event_resources')"
            )
            return int(sizes[0]), int(sizes[1])
        finally:
            await connection.close()

    return lambda: asyncio.run(size())


def one_round(target: Measured, kind: str, clients: int, runs: int) -> None:
    """Run `clients` tasks, each of which shows `runs` uploads, and wait until the server shows all of them."""
    command = [sys.executable, "-m", "tests.benchmarks.flow_run_client", kind, str(runs)]
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    cwd=PROJECT_ROOT,
                    env=target.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for _ in range(clients)
        ]
        for client in started:
            _line_of(client, "ready")
        target.live += clients  # each client has shown one upload before it was ready
        _wait_until_recorded(target)
        size, cpu, wanted = target.size_bytes(), target.cpu_seconds(), target.count("flow_runs", "COMPLETED")
        begun = time.perf_counter()
        for client in started:
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        requests = sum(int(_line_of(client, "requests ").split()[1]) for client in started)
        codes = [client.wait(_DEADLINE_SECONDS) for client in started]
        if any(codes):
            raise SystemExit(f"a client of {target.name} failed")
        done = clients * runs
        target.live += done if kind == LIVE else 0
        _wait_until_recorded(target, wanted + done)
    seconds = time.perf_counter() - begun
    server, backend = _each(cpu, target.cpu_seconds(), done)
    growth, events = _each(size, target.size_bytes(), done)
    target.rounds[kind].append((requests / done, server, backend, done / seconds * 60, growth / 1024, events / 1024))
    print(
        f"{target.name:<11} {kind}: {requests / done:5.2f} requests, CPU seconds {server:.3f} of the server and "
        f"{backend:.3f} of its database, {done / seconds * 60:7.1f} uploads/min",
        flush=True,
    )


def _each(before: tuple[float, float], after: tuple[float, float], runs: int) -> tuple[float, float]:
    """Return how much of each of two counters was used per run."""
    return (after[0] - before[0]) / runs, (after[1] - before[1]) / runs


def _line_of(client: subprocess.Popen[str], beginning: str) -> str:
    """Return the next line of a client's output with this beginning. If the client ends first, show its last line."""
    line = ""
    for line in client.stdout or ():
        if line.startswith(beginning):
            return line
    raise SystemExit(f"a client ended with exit code {client.wait()}: {line}")


def _wait_until_recorded(target: Measured, runs: int | None = None) -> None:
    """Wait until the server shows at least `runs` flow runs and the task runs of all live runs as completed. Task runs
    arrive later than flow runs, as events."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        over = target.count("flow_runs", "COMPLETED")
        if over >= (runs or 0) and target.count("task_runs", "COMPLETED") == _TASKS_PER_RUN * target.live:
            return
        time.sleep(0.1)
    raise SystemExit(f"{target.name} does not show every run")


def report(targets: list[Measured]) -> None:
    """Print the medians of the rounds."""
    for target in targets:
        for kind, rounds in target.rounds.items():
            columns = (statistics.median(values) for values in zip(*rounds, strict=True))
            requests, server, backend, rate, growth, events = columns
            print(
                f"{target.name}, {kind}: {requests:.2f} requests and {server:.3f} + {backend:.3f} CPU seconds an "
                f"upload (median of {len(rounds)}), {rate:.0f} uploads/min, at most {60 / server:.0f}; "
                f"the database grows by {growth:.0f} KiB" + (f", {events:.0f} of them events" if events else "")
            )


def main() -> None:
    """Measure both servers alternately."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each server, in turns (default: 3)")
    parser.add_argument("--clients", type=int, default=2, help="tasks at the same time (default: 2)")
    parser.add_argument("--runs", type=int, default=15, help="live uploads of each task in a round (default: 15)")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        targets = [stack.enter_context(measured(folder, "sqlite", ServerOptions(), None))]
        if programs():
            postgresql = stack.enter_context(running_postgresql())
            options = ServerOptions(database_url=postgresql.url)
            targets.append(stack.enter_context(measured(folder, "postgresql", options, postgresql.pid)))
        else:
            print("PostgreSQL is not installed: SQLite alone")
        print(
            f"{given.rounds} rounds of {given.clients} tasks x {given.runs} live uploads, and {_BULK_FACTOR} times as "
            "many in bulk"
        )
        for _ in range(given.rounds):
            for target in targets:
                one_round(target, LIVE, given.clients, given.runs)
                one_round(target, BULK, given.clients, given.runs * _BULK_FACTOR)
        report(targets)


if __name__ == "__main__":
    main()
