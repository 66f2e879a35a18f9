"""The local Prefect server's settings, and a template of its database, which saves the migration."""

import base64
import importlib.metadata
import json
import os
import shutil
import sqlite3
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from deployment.local.own_pages import own_origins
from deployment.local.ports import HOST

_WITHOUT_PROXIES = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class ServerOptions:
    """Options that a team's server usually has; the local one has the defaults, except in tests."""

    database_url: str = ""  # the database's address, such as postgresql+asyncpg://...; empty: SQLite in its home
    auth_string: str = ""  # USER:PASSWORD that every client must send; empty: none


def server_environment(home: Path, port: int, options: ServerOptions = ServerOptions()) -> dict[str, str]:
    """Return the server's environment; `home` replaces ~/.prefect."""
    environment = client_environment(home, port, options.auth_string) | {
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(own_origins(port)),
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),  # else it writes into the installed package
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": options.database_url or f"sqlite+aiosqlite:///{database(home)}",
        # By default leases are kept in memory: after a restart, slots that runs held would never be released.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": str(not _block_types_mark(home).exists()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
    }
    return environment | ({"PREFECT_SERVER_API_AUTH_STRING": options.auth_string} if options.auth_string else {})


def client_environment(home: Path, port: int, auth_string: str = "") -> dict[str, str]:
    """Return the variables with which a Prefect client uses only this server."""
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    }
    return environment | ({"PREFECT_API_AUTH_STRING": auth_string} if auth_string else {})


def is_ready(home: Path, port: int, auth_string: str = "") -> bool:
    """Return whether the server on `port` is ready, and is the one with this `home`: another local cloud that starts at
    the same moment may have taken the port."""
    url = f"http://{HOST}:{port}/api"
    headers = {"Authorization": f"Basic {base64.b64encode(auth_string.encode()).decode()}"} if auth_string else {}
    try:
        for path in ("ready", "admin/settings"):
            request = urllib.request.Request(f"{url}/{path}", headers=headers)  # noqa: S310 (http only, loopback)
            with _WITHOUT_PROXIES.open(request, timeout=2) as answer:
                settings = answer.read()
    except OSError:
        return False
    return bool(json.loads(settings).get("home") == str(home))


def database(home: Path) -> Path:
    return home / "prefect.db"


def template(cache: Path) -> Path:
    """Return the path for the template: a migrated, empty database of this Prefect version."""
    return cache / f"prefect-{importlib.metadata.version('prefect')}.db"


def _block_types_mark(home: Path) -> Path:
    """Return a file that exists if the database came with the block types of this Prefect version: registering them is
    a seventh of a start's CPU time."""
    return home / f"block-types-{importlib.metadata.version('prefect')}"


def start_from_template(home: Path, cache: Path) -> bool:
    """Copy the template to a home without a database, which saves ten seconds of migration. Return True if there is no
    template yet, so that `keep_template` should be called."""
    home.mkdir(parents=True, exist_ok=True)
    if database(home).exists():
        return False
    if not template(cache).exists():
        return True
    shutil.copyfile(template(cache), database(home))
    _block_types_mark(home).touch()
    return False


def keep_template(home: Path, cache: Path) -> None:
    """Store a copy of a database that was just migrated, and is still empty, as the template."""
    cache.mkdir(parents=True, exist_ok=True)
    partial = template(cache).with_suffix(f".{os.getpid()}")
    with sqlite3.connect(database(home)) as source, sqlite3.connect(partial) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    partial.replace(template(cache))
