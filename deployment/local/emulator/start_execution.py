"""Makes StartExecution return the running execution if one with the same name and input is already running, as Step
Functions does. MiniStack returns the error that the execution already exists.

docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
"""

from typing import Any

from ministack.core.responses import get_account_id, get_region, json_response
from ministack.services import stepfunctions


def install() -> None:
    start = stepfunctions._start_execution

    def start_or_return(request: dict[str, Any]) -> Any:
        running = _running(request)
        if running is None:
            return start(request)
        return json_response({"executionArn": running["executionArn"], "startDate": running["startDate"]})

    stepfunctions._start_execution = start_or_return


def _running(request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the running execution with the name and input in the request; None if there is none."""
    machine = str(request.get("stateMachineArn", "")).rpartition(":")[2]
    arn = f"arn:aws:states:{get_region()}:{get_account_id()}:execution:{machine}:{request.get('name')}"
    execution: dict[str, Any] | None = stepfunctions._executions.get(arn)
    if execution is None or execution["status"] != "RUNNING" or execution["input"] != request.get("input", "{}"):
        return None
    return execution
