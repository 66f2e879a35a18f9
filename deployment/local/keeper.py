"""Runs one service and ends it when the process that started it has ended for any reason.

    python -m deployment.local.keeper RECORDS WHAT GRACE_SECONDS COMMAND...

The starting process holds the other end of standard input. When that closes (on stop, exit or kill), or on SIGTERM,
the service gets SIGTERM, and SIGKILL after the grace period, with its whole session. Standard library only, and as
few modules as possible: one keeper runs per service.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from deployment.local.processes import forget, kill_group, remember


def main(arguments: list[str]) -> int:
    """Run the service; return its exit code, 128 plus the signal's number when a signal ended it."""
    records, what, grace_seconds, *command = arguments
    # A shell that starts things with `&` leaves SIGINT ignored, and that is inherited. Prefect's worker turns
    # its first SIGTERM into SIGINT: it would never stop.
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
