"""Answers RunTask with prepared responses instead of ECS's, such as throttling, missing capacity and other failures.

Each line of the file `run_task_answers.jsonl` in the state folder answers one RunTask call and is then removed. If
there are no lines, ECS answers. A line contains the HTTP status and the body:

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
    """Answer RunTask from the file in this state folder as long as it has lines."""
    run_task, prepared = ecs._run_task, state / FILE_NAME

    def run_prepared(request: Any) -> Any:
        line = _next_line(prepared)
        if line is None:
            return run_task(request)
        answer = json.loads(line)
        headers = {"Content-Type": "application/x-amz-json-1.1"}
        return int(answer["status"]), headers, json.dumps(answer["body"]).encode()

    ecs._run_task = run_prepared
    ecs._ACTION_MAP["RunTask"] = run_prepared  # the map refers to the original function


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
