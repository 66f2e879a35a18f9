"""The list of the emulator's extensions, and a function that reads the IAM decisions that one of them records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXTENSIONS = tuple(
    f"tests.emulator.{name}"
    for name in (
        "decision_record",
        "run_task_answers",
        "memory_limit",
        "lambda_lines",
        "lambda_json_logs",
        "pushed_images",
        "warm_tasks",
    )
)


def decisions_of(state_dir: Path) -> list[dict[str, Any]]:
    """Return every IAM decision about a role that decision_record.py has recorded so far."""
    path = state_dir / "decisions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
