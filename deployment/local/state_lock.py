"""A file lock that allows only one local cloud per state folder. The operating system releases it when the process that
holds it ends."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from deployment.local.errors import LocalCloudBusy


class StateLock:
    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "lock"
        self._file: TextIO | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    def acquire(self) -> None:
        """Acquire the lock, and create the state folder if necessary. Raise LocalCloudBusy if another process holds the
        lock."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+", encoding="utf-8")
        if not _lock(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise LocalCloudBusy(
                f"A local cloud is already running with the state folder {self._path.parent} (process {holder}). "
                "Stop it with Ctrl-C in its terminal, or choose another state folder with --state."
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def is_taken(self) -> bool:
        """Return whether any process, including this one, holds the lock."""
        if self.held or not self._path.exists():
            return self.held
        with self._path.open(encoding="utf-8") as file:
            return not _lock(file)


def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
