"""Starts the project's tasks by forking a process that has made their heavy imports already. Saves time, nothing else.

The forked processes are as real: own session, environment, output and exit code, and they can be killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from typing import Any

from deployment.local.emulator import containers

_ROOT = Path(__file__).parents[2]
_PR_SET_CHILD_SUBREAPER = 36


def install(_state: Path) -> None:
    """Fork tasks that run a module of the project's; start all others as before."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    warm = _WarmProcesses()

    def start(command: list[str], *, cwd: Path, env: dict[str, str], stdout: Any, **options: Any) -> Any:
        if command[:2] == ["python", "-m"]:
            return warm.start(command[2:], env, Path(stdout.name), cwd)
        return subprocess.Popen(command, cwd=cwd, env=env, stdout=stdout, **options)

    containers.subprocess = SimpleNamespace(  # type: ignore[attr-defined,assignment]
        Popen=start, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT
    )


class _WarmProcesses:
    """The process that tasks are forked from, started with the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: socket.socket | None = None

    def start(self, arguments: list[str], environment: dict[str, str], output: Path, code: Path) -> _Process:
        request = {"arguments": arguments, "environment": environment, "output": str(output), "cwd": str(code)}
        with self._lock:
            if self._requests is None:
                self._requests = self._started({name: environment[name] for name in ("PATH", "HOME")})
            self._requests.send(json.dumps(request).encode())
            return _Process(int(self._requests.recv(100)))

    def _started(self, environment: dict[str, str]) -> socket.socket:
        python = which("python", path=environment["PATH"]) or "python"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            subprocess.Popen(
                [python, "-m", "tests.emulator.warm_process", str(theirs.fileno())],
                cwd=_ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        return ours


class _Process:
    """The part of `subprocess.Popen` that containers.py uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)
