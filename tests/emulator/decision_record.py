"""Records every decision that IAM makes about a role, so that tests can compare policies with real calls.

Each decision is one line of JSON with the fields time, role (the role's name), principal (the session's ARN), action,
resource, allowed and asked_by. The last one is "request" for a call that the role made itself, and "step functions",
"ecs" or "scheduler" for a call that AWS makes on its behalf. Calls by the account's root user are not recorded, because
IAM does not evaluate them.
"""

from __future__ import annotations

import json
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ministack.core import iam_evaluator

from deployment.local.emulator import permissions

_evaluated: ContextVar[Any] = ContextVar("sluice_evaluated", default=None)


def install(state: Path) -> None:
    """Append each decision from now on to the file decisions.jsonl in the state folder."""
    write = _writer(state / "decisions.jsonl")
    permissions.decision_listeners.append(write)
    enforce, evaluate = iam_evaluator.enforce, iam_evaluator.evaluate

    def remembering_evaluate(context: Any, *policies: Any) -> Any:
        _evaluated.set(context)
        return evaluate(context, *policies)

    def recording_enforce(*arguments: Any, **keywords: Any) -> Any:
        token = _evaluated.set(None)
        try:
            refusal = enforce(*arguments, **keywords)
            context = _evaluated.get()
        finally:
            _evaluated.reset(token)
        if context is not None:  # IAM does not evaluate requests by root, and an unknown caller has no role
            write(context, refusal is None, "request")
        return refusal

    iam_evaluator.evaluate, iam_evaluator.enforce = remembering_evaluate, recording_enforce


def _writer(path: Path) -> Any:
    lock, file = threading.Lock(), path.open("a", encoding="utf-8")

    def write(context: Any, allowed: bool, asked_by: str) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(),
            "role": role_of(context.principal_arn),
            "principal": context.principal_arn,
            "action": context.action,
            "resource": context.resource_arn,
            "allowed": allowed,
            "asked_by": asked_by,
        }
        with lock:
            file.write(json.dumps(line) + "\n")
            file.flush()

    return write


def role_of(principal_arn: str) -> str:
    """Return the name of the role from the ARN of one of its sessions."""
    return principal_arn.rpartition(":")[2].removeprefix("assumed-role/").partition("/")[0]
