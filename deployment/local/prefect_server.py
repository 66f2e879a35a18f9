"""Settings of the local Prefect server, and a database that is already migrated."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sqlite3
from pathlib import Path

from deployment.local.ports import HOST
from deployment.local.services import answers, fetch


def server_environment(home: Path, port: int) -> dict[str, str]:
    """Return what the server and its clients get; `home` takes the place of ~/.prefect."""
    return client_environment(home, port) | {
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),  # else it writes into the installed package
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database(home)}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
    }


def client_environment(home: Path, port: int) -> dict[str, str]:
    """Return what lets a process of ours talk to the server and to no other."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    }


def is_ready(home: Path, port: int) -> bool:
    """Whether the server on `port` is ready, and is the one of `home`.

    Another local cloud that starts at the same moment may have taken the port first; its server answers just as well.
    """
    url = f"http://{HOST}:{port}/api"
    settings = fetch(f"{url}/admin/settings") if answers(f"{url}/ready") else None
    return settings is not None and json.loads(settings).get("home") == str(home)


def database(home: Path) -> Path:
    """Return where the server keeps its data."""
    return home / "prefect.db"


def template(cache: Path) -> Path:
    """Return where a migrated, empty database of this Prefect version is kept."""
    return cache / f"prefect-{importlib.metadata.version('prefect')}.db"


def start_from_template(home: Path, cache: Path) -> bool:
    """Give a new home the migrated database, which saves ten seconds; return whether one should be kept."""
    home.mkdir(parents=True, exist_ok=True)
    if database(home).exists():
        return False
    if not template(cache).exists():
        return True
    shutil.copyfile(template(cache), database(home))
    return False


def keep_template(home: Path, cache: Path) -> None:
    """Keep a copy of a database that was just migrated, before anything is in it."""
    cache.mkdir(parents=True, exist_ok=True)
    partial = template(cache).with_suffix(f".{os.getpid()}")
    with sqlite3.connect(database(home)) as source, sqlite3.connect(partial) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    partial.replace(template(cache))
