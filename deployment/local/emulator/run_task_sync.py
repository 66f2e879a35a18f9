"""Runs the integration ecs:runTask.sync as Step Functions does.

MiniStack's version ignores the task's exit code, returns names in camelCase, stops waiting after 600 polls, and leaves
the task running if the execution is stopped or the state times out.

docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html
"""

import json
import time
from typing import Any

from ministack.services import ecs, stepfunctions

from deployment.local.emulator.state_machine_role import Permission, cluster_arn, current_state, require

_POLL_SECONDS = 0.2

# The names of RunTask's errors; all others, such as throttles and missing capacity, are ECS.AmazonECSException:
# docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html#API_RunTask_Errors
_RUN_TASK_ERRORS = frozenset(
    {
        "AccessDeniedException",
        "BlockedException",
        "ClientException",
        "ClusterNotFoundException",
        "ConflictException",
        "InvalidParameterException",
        "PlatformTaskDefinitionIncompatibilityException",
        "PlatformUnknownException",
        "ServerException",
        "UnsupportedFeatureException",
    }
)


def install() -> None:
    stepfunctions._SERVICE_DISPATCH["arn:aws:states:::ecs:runTask"] = _run_task


def _run_task(_resource: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Launch a task, wait until it ends, and return it, or raise the same error as Step Functions.

    The error is ECS.NAME if RunTask fails with the error NAME, and AmazonECS.Unknown if its response lists failures. It
    is States.TaskFailed, with the task as JSON, if the task did not start, was stopped, or has a container with an exit
    code other than 0.
    """
    request = stepfunctions._pascal_to_camel(arguments)
    status, _, body = ecs._run_task(request)
    answer = json.loads(body)
    if status >= 400:
        code = str(answer.get("__type", "")).rsplit("#", 1)[-1]
        error = code if code in _RUN_TASK_ERRORS else "AmazonECSException"
        raise stepfunctions._ExecutionError(f"ECS.{error}", f"{answer.get('message', '')} (Error Code: {code})")
    if answer.get("failures") or not answer.get("tasks"):
        raise stepfunctions._ExecutionError("AmazonECS.Unknown", json.dumps(_pascal(answer)))
    cluster, task_arn = request.get("cluster", "default"), answer["tasks"][0]["taskArn"]
    task = _wait_for_end(cluster, task_arn)
    result: dict[str, Any] = _pascal(task)
    if task.get("stopCode") != "EssentialContainerExited" or any(
        container.get("exitCode") != 0 for container in task["containers"]
    ):
        raise stepfunctions._ExecutionError("States.TaskFailed", json.dumps(result))
    return result


def _wait_for_end(cluster: str, task_arn: str) -> dict[str, Any]:
    conditions = {"ecs:cluster": cluster_arn({"Cluster": cluster})}
    require(Permission("ecs:DescribeTasks", task_arn, conditions), "ECS.AccessDeniedException")
    while True:
        _, _, body = ecs._describe_tasks({"cluster": cluster, "tasks": [task_arn]})
        tasks = json.loads(body)["tasks"]
        if tasks and tasks[0]["lastStatus"] == "STOPPED":
            return dict(tasks[0])
        reason = _reason_to_stop()
        if reason:
            require(Permission("ecs:StopTask", task_arn, conditions), "ECS.AccessDeniedException")
            ecs._stop_task({"cluster": cluster, "task": task_arn, "reason": reason})
        time.sleep(_POLL_SECONDS)


def _reason_to_stop() -> str:
    current = current_state.get()
    if current is None:
        return ""
    if current.execution["status"] != "RUNNING":
        return "The execution that started this task was stopped."
    if current.deadline is not None and time.monotonic() > current.deadline:
        return "The state that started this task timed out."
    return ""


def _pascal(value: Any) -> Any:
    """Return a response from ECS with capitalized names, as Step Functions returns it."""
    if isinstance(value, list):
        return [_pascal(item) for item in value]
    if isinstance(value, dict):
        return {name[:1].upper() + name[1:]: _pascal(item) for name, item in value.items()}
    return value
