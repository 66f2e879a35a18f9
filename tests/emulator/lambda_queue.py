"""Runs ten invocations at once, as in a new account, and lets the other events wait, as Lambda's own queue does.

MiniStack starts a process for each event that it gets meanwhile; a burst of 1,000 would be 1,000 processes.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from ministack.services import lambda_svc

_AT_ONCE = 10  # docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html


def install(_state: Path) -> None:
    """Bound how many invocations run."""
    execute, turn = lambda_svc._execute_function, threading.Semaphore(_AT_ONCE)

    def execute_in_turn(func: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        with turn:
            result: dict[str, Any] = execute(func, event)
        return result

    lambda_svc._execute_function = execute_in_turn
