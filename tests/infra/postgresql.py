"""A PostgreSQL server for tests, which serves as the database of a Prefect server. PostgreSQL must be installed on the
machine."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployment.local.ports import HOST, free_port

_USER = "sluice"
_READY = "database system is ready to accept connections"
_READY_SECONDS = 60
_STOP_SECONDS = 20


def programs() -> Path | None:
    """Return the folder that contains initdb and postgres, or None if PostgreSQL is not installed. Debian does not put
    them on the PATH."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return folders[-1].parent if folders else None


@dataclass(frozen=True)
class Postgresql:
    """A running PostgreSQL server: the database URL for Prefect, and the process ID of the server's main process."""

    url: str
    pid: int


@contextmanager
def running_postgresql() -> Iterator[Postgresql]:
    """Run a new server on a free loopback port, with a random password.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    folder = programs()
    if folder is None:
        raise FileNotFoundError("initdb: PostgreSQL is not installed")
    password, port = secrets.token_hex(16), free_port()
    # This is not one of pytest's folders, because the user that PostgreSQL runs as could not access those.
    with tempfile.TemporaryDirectory(prefix="sluice-postgresql-") as name:
        data = Path(name) / "data"
        _make_cluster(folder, Path(name), data, password)
        options = [f"port={port}", f"listen_addresses={HOST}", "unix_socket_directories="]
        log = Path(name) / "log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*_as_nobody(), folder / "postgres", "-D", data, *(part for one in options for part in ("-c", one))],
                cwd=name,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_until_ready(server, log)
            yield Postgresql(f"postgresql+asyncpg://{_USER}:{password}@{HOST}:{port}/postgres", server.pid)
        finally:
            server.send_signal(signal.SIGINT)  # on SIGTERM, it would wait until its clients disconnect
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _make_cluster(programs_folder: Path, folder: Path, data: Path, password: str) -> None:
    secret = folder / "password"
    secret.write_text(password)
    if _as_nobody():
        nobody = pwd.getpwnam("nobody")
        for path in (folder, secret):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    access = ["-U", _USER, "--auth=scram-sha-256", f"--pwfile={secret}"]
    initdb = [str(programs_folder / "initdb"), "-D", str(data), *access, "--encoding=UTF8", "--no-locale", "--no-sync"]
    subprocess.run([*_as_nobody(), *initdb], cwd=folder, check=True, capture_output=True)


def _as_nobody() -> list[str]:
    """Return a command prefix that switches to the user nobody, or none if this process is not root. PostgreSQL refuses
    to run as root."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


def _wait_until_ready(server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while _READY not in log.read_text():
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL does not start: {log.read_text()[-1000:]}")
        time.sleep(0.05)
