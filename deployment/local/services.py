"""Starts a process of the local cloud, waits until it is ready, and stops it, each with a time limit."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deployment import PROJECT_ROOT
from deployment.local.errors import ServiceDied, ServiceNotReady
from deployment.local.processes import POLL_SECONDS, ProcessRecord, kill_group, recorded

_LOG_LINES_SHOWN = 15
# How long a keeper may take to end after the service's grace period.
_KEEPER_SECONDS = 10


@dataclass
class Service:
    """A process of the local cloud, which is run by a keeper (keeper.py), and its log."""

    name: str  # used in messages and in the process records
    command: list[str]  # the command, which runs in the project's root folder
    environment: dict[str, str]  # the complete environment
    log_path: Path  # the output, in a new file at each start; the previous file is kept next to it
    records: Path  # the folder of process records; see processes.py
    grace_seconds: float = 10  # how long the process may take to end after SIGTERM
    _keeper: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the process without waiting until it is ready; for that, call `wait_until`."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.parent.chmod(0o700)  # also if the folder exists, because logs may contain confidential data
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_suffix(".previous.log"))
        keeper = [sys.executable, "-S", "-m", "deployment.local.keeper"]
        self.log_path.touch(mode=0o600)
        with self.log_path.open("wb") as log:
            self._keeper = subprocess.Popen(
                [*keeper, str(self.records), self.name, str(self.grace_seconds), *self.command],
                cwd=PROJECT_ROOT,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """Return the process ID of the service, not of its keeper; None if it is not running."""
        return next((record.pid for record in self._processes()), None)

    def _processes(self) -> list[ProcessRecord]:
        return [record for record in recorded(self.records) if record.what == self.name]

    def check(self) -> None:
        """Raise ServiceDied if the process ended unexpectedly."""
        if self._keeper is not None and self._keeper.poll() is not None:
            raise ServiceDied(
                f"{self.name} ended unexpectedly with exit code {self._keeper.returncode}.{self.log_tail()}"
            )

    def wait_until(self, ready: Callable[[], bool], deadline_seconds: float) -> None:
        """Wait until `ready` returns true. Raise ServiceDied if the process ends before that, and ServiceNotReady if
        that takes longer than `deadline_seconds`."""
        deadline = time.monotonic() + deadline_seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ServiceNotReady(
                    f"{self.name} was not ready within {deadline_seconds:.0f} seconds.{self.log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop the process and its child processes, and wait until they have ended."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        with contextlib.suppress(OSError):
            if keeper.stdin is not None:
                keeper.stdin.close()
        try:
            keeper.wait(self.grace_seconds + _KEEPER_SECONDS)
        except subprocess.TimeoutExpired:
            for process in self._processes():
                kill_group(process.pid)
            keeper.kill()
            keeper.wait()

    def log_tail(self) -> str:
        """Return the last lines of the log with an introduction, to be appended to an error message."""
        try:
            lines = self.log_path.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        if not lines:
            return f" Its log, {self.log_path}, is empty."
        shown = "\n".join(f"  {line}" for line in lines[-_LOG_LINES_SHOWN:])
        return f" The last lines of {self.log_path}:\n{shown}"
