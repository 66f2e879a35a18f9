"""Starts the project's tasks by forking a process that has already made their slow imports (see tests/forking.py)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from deployment.local.emulator import containers
from tests.forking import popen


def install(_state: Path) -> None:
    """Fork the tasks that run one of the project's modules, and start all others as before."""

    def start(command: list[str], *, env: dict[str, str], **options: Any) -> Any:
        return popen(env["PATH"])(command, env=env, **options)

    containers.subprocess = SimpleNamespace(  # type: ignore[attr-defined,assignment]
        Popen=start, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT
    )
