"""Runs at most ten Lambda invocations at a time, which is the limit of a new account. Other events wait, as in Lambda's
own queue.

Without this limit, MiniStack starts a process for each concurrent event, so a burst of 1,000 events would start 1,000
processes.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from ministack.services import lambda_svc

_AT_ONCE = 10  # docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html


def install(_state: Path) -> None:
    """Limit the number of concurrent invocations."""
    execute, turn = lambda_svc._execute_function, threading.Semaphore(_AT_ONCE)

    def execute_in_turn(func: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        with turn:
            result: dict[str, Any] = execute(func, event)
        return result

    lambda_svc._execute_function = execute_in_turn
