"""Rehearses what ECS may answer when a task is to be launched: throttles, no capacity, Failures.

Each line of the file `run_task_answers.jsonl` in the state folder answers one RunTask call in ECS's place and is then
taken out of it; without lines ECS answers itself. A line holds the HTTP status and the body:

    {"status": 400, "body": {"__type": "ThrottlingException", "message": "Rate exceeded"}}
    {"status": 200, "body": {"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]}}
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from ministack.services import ecs

FILE_NAME = "run_task_answers.jsonl"
_lock = threading.Lock()


def install(state: Path) -> None:
    """Let RunTask look into the file of this state folder first."""
    run_task, prepared = ecs._run_task, state / FILE_NAME

    def answer(request: Any) -> Any:
        line = _next_line(prepared)
        if line is None:
            return run_task(request)
        said = json.loads(line)
        headers = {"Content-Type": "application/x-amz-json-1.1"}
        return int(said["status"]), headers, json.dumps(said["body"]).encode()

    ecs._run_task = answer
    ecs._ACTION_MAP["RunTask"] = answer  # it holds the function itself


def _next_line(path: Path) -> str | None:
    with _lock:
        if not path.exists():
            return None
        first, *others = path.read_text().splitlines() or [""]
        if others:
            path.write_text("\n".join(others) + "\n")
        else:
            path.unlink()
        return first or None
