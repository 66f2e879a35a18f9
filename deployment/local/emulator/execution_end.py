"""Ends all steps of an execution when it is stopped. In MiniStack, the items of a Map state continue, launch tasks, and
finally change the execution's status.

docs.aws.amazon.com/step-functions/latest/apireference/API_StopExecution.html
"""

from typing import Any

from ministack.services import stepfunctions

from deployment.local.emulator.state_machine_role import current_state


def install() -> None:
    execute, invoke, fail = (
        stepfunctions._execute_task,
        stepfunctions._invoke_resource,
        stepfunctions._fail_execution,
    )

    def execute_if_running(state: Any, given: Any, execution: dict[str, Any], context: Any) -> Any:
        _refuse_if_ended(execution)
        return execute(state, given, execution, context)

    def invoke_if_running(resource: str, arguments: Any) -> Any:
        current = current_state.get()
        if current is not None:
            _refuse_if_ended(current.execution)
        return invoke(resource, arguments)

    def fail_if_running(execution: dict[str, Any], error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            fail(execution, error, cause)

    stepfunctions._execute_task = execute_if_running
    stepfunctions._invoke_resource = invoke_if_running
    stepfunctions._fail_execution = fail_if_running


def _refuse_if_ended(execution: dict[str, Any]) -> None:
    if execution["status"] != "RUNNING":
        raise stepfunctions._ExecutionError("States.Runtime", "the execution has ended")
