"""Records the processes that use a state folder, so that a later run can end those that an earlier run left behind.

Because the system reuses process IDs, each record also contains the process's start time, and only a process that
matches both is treated as the recorded one. This module must import only the standard library, because the AWS
emulator's Python environment uses it too.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05
_GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """The record of a process, which is the leader of its session and its process group."""

    pid: int  # the process ID, which is also that of the group
    started: str  # when it started, in a form that can only be compared on this machine until it reboots
    what: str  # a description for the user

    def is_alive(self) -> bool:
        """Return whether the process is still running. A zombie counts as ended."""
        return start_of(self.pid) == self.started

    def end(self, grace_seconds: float) -> None:
        """Send SIGTERM to the process and, when it has ended or after `grace_seconds`, SIGKILL to its whole group. Wait
        up to five more seconds for it to end."""
        if not self.is_alive():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        kill_group(self.pid)
        deadline = time.monotonic() + 5
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def kill_group(pid: int) -> None:
    """Kill every process in the group whose leader is `pid`, if there is such a group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def start_of(pid: int) -> str | None:
    """Return a string that identifies when process `pid` started; None if no such process is running."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()  # the name in parentheses may contain spaces
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, started_ticks = fields[0], fields[19]
        return None if state in "ZX" else f"{_boot_id()}/{started_ticks}"
    answer = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def remember(folder: Path, pid: int, what: str) -> None:
    """Record a process that was just started. Do nothing if it has already ended."""
    started = start_of(pid)
    if started is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{pid}"
    partial.write_text(json.dumps({"pid": pid, "started": started, "what": what}))
    partial.replace(folder / f"{pid}.json")


def forget(folder: Path, pid: int) -> None:
    (folder / f"{pid}.json").unlink(missing_ok=True)


def recorded(folder: Path) -> list[ProcessRecord]:
    """Return the records of processes that are still running, oldest first; delete those of processes that ended."""
    alive = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
        try:
            record = ProcessRecord(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if record.is_alive():
            alive.append(record)
        else:
            forget(folder, record.pid)
    return alive


def end_leftovers(folder: Path) -> list[ProcessRecord]:
    """End every recorded process that is still running, and return the records of these processes."""
    ended = recorded(folder)
    for record in ended:
        record.end(_GRACE_SECONDS)
        forget(folder, record.pid)
    return ended
