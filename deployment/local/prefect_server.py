"""The settings of the local Prefect server, and a template of its database, which saves migrating a new one."""

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
    """Options that a team's Prefect server usually sets. The local server uses the defaults, except in tests."""

    database_url: str = ""  # the database's URL, such as postgresql+asyncpg://...; "" for SQLite in the home folder
    auth_string: str = ""  # the USER:PASSWORD that every client must send; "" for none


def server_environment(home: Path, port: int, options: ServerOptions = ServerOptions()) -> dict[str, str]:
    """Return the environment variables of a Prefect server that uses `home` instead of ~/.prefect."""
    environment = client_environment(home, port, options.auth_string) | {
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(own_origins(port)),
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),  # otherwise it writes into the installed package
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": options.database_url or f"sqlite+aiosqlite:///{database(home)}",
        # By default, leases are kept in memory, so slots that runs held would never be released after a restart.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": str(not _block_types_mark(home).exists()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
    }
    return environment | ({"PREFECT_SERVER_API_AUTH_STRING": options.auth_string} if options.auth_string else {})


def client_environment(home: Path, port: int, auth_string: str = "") -> dict[str, str]:
    """Return the environment variables of a Prefect client that uses only the server on this port."""
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    }
    return environment | ({"PREFECT_API_AUTH_STRING": auth_string} if auth_string else {})


def is_ready(home: Path, port: int, auth_string: str = "") -> bool:
    """Return whether the server on `port` is ready and uses this `home`. A server with a different home may belong to
    another local cloud, which started at the same time and took the port."""
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
    """Return the path of the template, which is an empty database that was migrated by this version of Prefect."""
    return cache / f"prefect-{importlib.metadata.version('prefect')}.db"


def _block_types_mark(home: Path) -> Path:
    """Return the path of a file that exists if the database already contains this Prefect version's block types.
    Registering them takes a seventh of the CPU time of a start."""
    return home / f"block-types-{importlib.metadata.version('prefect')}"


def start_from_template(home: Path, cache: Path) -> bool:
    """Copy the template to `home` if there is no database yet, which saves ten seconds of migration. Return whether
    `keep_template` should be called later, because there is no template yet."""
    home.mkdir(parents=True, exist_ok=True)
    if database(home).exists():
        return False
    if not template(cache).exists():
        return True
    shutil.copyfile(template(cache), database(home))
    _block_types_mark(home).touch()
    return False


def keep_template(home: Path, cache: Path) -> None:
    """Store a copy of the database in `home`, which was just migrated and is still empty, as the template."""
    cache.mkdir(parents=True, exist_ok=True)
    partial = template(cache).with_suffix(f".{os.getpid()}")
    with sqlite3.connect(database(home)) as source, sqlite3.connect(partial) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    partial.replace(template(cache))
