"""Ends an execution after its state machine's TimeoutSeconds, which MiniStack ignores.

docs.aws.amazon.com/step-functions/latest/dg/statemachine-structure.html
"""

import contextvars
import json
import threading
from typing import Any

from ministack.core.responses import now_iso
from ministack.services import stepfunctions


def install() -> None:
    run = stepfunctions._run_execution

    def run_in_time(execution_arn: str) -> None:
        execution = stepfunctions._executions.get(execution_arn)
        limit = _limit(execution) if execution else None
        if not execution or not limit:
            run(execution_arn)
            return
        timer = threading.Timer(limit, contextvars.copy_context().run, [_time_out, execution])
        timer.daemon = True
        timer.start()
        try:
            run(execution_arn)
        finally:
            timer.cancel()

    stepfunctions._run_execution = run_in_time


def _limit(execution: dict[str, Any]) -> float | None:
    machine = stepfunctions._state_machines.get(execution["stateMachineArn"]) or {}
    try:
        return float(json.loads(machine["definition"])["TimeoutSeconds"])
    except (LookupError, ValueError):
        return None


def _time_out(execution: dict[str, Any]) -> None:
    if execution["status"] != "RUNNING":
        return
    execution.update(status="TIMED_OUT", stopDate=now_iso(), error="States.Timeout", cause="")
    stepfunctions._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
    stepfunctions._emit_execution_status_event(execution)
