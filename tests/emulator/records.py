"""What the extensions of the emulator are called, and what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DECISION_RECORD = "tests.emulator.decision_record"
RUN_TASK_ANSWERS = "tests.emulator.run_task_answers"
EXTENSIONS = (DECISION_RECORD, RUN_TASK_ANSWERS)


def decisions_of(state_dir: Path) -> list[dict[str, Any]]:
    """Every IAM decision about a role so far (decision_record.py)."""
    path = state_dir / "decisions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
