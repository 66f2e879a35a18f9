"""Runs a service as a child process, and ends it when the process that started the keeper ends for any reason.

    python -m deployment.local.keeper RECORDS WHAT GRACE_SECONDS COMMAND...

The process that starts a keeper holds the other end of the keeper's standard input. When that end is closed, because
the process stops the service, exits or is killed, or when the keeper gets SIGTERM, the service gets SIGTERM. After the
grace period, its whole process group gets SIGKILL. A keeper runs for every service, so this module imports little, and
only from the standard library.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from deployment.local.processes import forget, kill_group, remember


def main(arguments: list[str]) -> int:
    """Run the service that the arguments name. Return its exit code, or 128 plus the number of the signal that ended
    it."""
    records, what, grace_seconds, *command = arguments
    # A shell that starts a command with `&` makes it ignore SIGINT, which child processes inherit. Prefect's worker
    # turns its first SIGTERM into SIGINT, so it would never stop.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    service = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    remember(Path(records), service.pid, what)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    try:
        while service.poll() is None and not stop.wait(0.1):
            pass
        _end(service, float(grace_seconds))
    finally:
        kill_group(service.pid)
        forget(Path(records), service.pid)
    return service.returncode if service.returncode >= 0 else 128 - service.returncode


def _wait_for_end_of_input(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stop.set()


def _end(service: subprocess.Popen[bytes], grace_seconds: float) -> None:
    if service.poll() is not None:
        return
    service.terminate()
    try:
        service.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        kill_group(service.pid)
        service.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
