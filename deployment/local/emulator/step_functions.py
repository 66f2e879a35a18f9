"""Makes Step Functions call other services as the state machine's role, and run ECS tasks as AWS does.

MiniStack calls them as root, so a role that lacks a permission would only be found out in AWS. And its
ecs:runTask.sync succeeds whatever the exit code, answers in camelCase, gives up after 600 looks, and leaves the task
running when the execution is stopped or the state times out:
docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from ministack.core.responses import get_account_id, get_region
from ministack.services import ecs, stepfunctions

from deployment.local.emulator.decisions import Decisions

_POLL_SECONDS = 0.2
_RUN_TASK = "arn:aws:states:::ecs:runTask"
# Through this rule ECS tells Step Functions that a task stopped; the role must be allowed to make it:
# docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html#sync-async-iam-policies
_ECS_EVENTS_RULE = "rule/StepFunctionsGetEventsForECSTaskRule"


class Permission(NamedTuple):
    """One thing that the state machine's role must be allowed to do."""

    action: str
    resource: str
    conditions: dict[str, Any]


class _Current(NamedTuple):
    """What runs in this thread: the execution, and when its present state times out."""

    execution: dict[str, Any]
    deadline: float | None


_current: ContextVar[_Current | None] = ContextVar("sluice_execution", default=None)
_frozen = threading.Event()


def freeze() -> None:
    """Let no execution take another step: the cloud is stopping, and they go on when it is started again."""
    _frozen.set()


def install(decisions: Decisions) -> None:
    """Replace how MiniStack runs Task states."""
    execute, invoke, invoke_in_time = (
        stepfunctions._execute_task,
        stepfunctions._invoke_resource,
        stepfunctions._invoke_resource_with_timeout,
    )

    def execute_task(state: Any, raw_input: Any, execution: Any, context: Any) -> Any:
        _stand_still_if_frozen()
        token = _current.set(_Current(execution, None))
        try:
            return execute(state, raw_input, execution, context)
        finally:
            _current.reset(token)

    def invoke_with_timeout(resource: str, arguments: Any, seconds: Any) -> Any:
        current = _current.get()
        if current is None:
            return invoke_in_time(resource, arguments, seconds)
        token = _current.set(current._replace(deadline=time.monotonic() + float(seconds)))
        try:
            return invoke_in_time(resource, arguments, seconds)
        finally:
            _current.reset(token)
            _stand_still_if_frozen()

    def invoke_as_role(resource: str, arguments: Any) -> Any:
        _authorize(decisions, resource, arguments)
        try:
            return invoke(resource, arguments)
        finally:
            _stand_still_if_frozen()

    stepfunctions._execute_task = execute_task
    stepfunctions._invoke_resource = invoke_as_role
    stepfunctions._invoke_resource_with_timeout = invoke_with_timeout
    stepfunctions._SERVICE_DISPATCH[_RUN_TASK] = lambda resource, arguments: _run_task(decisions, resource, arguments)


def _stand_still_if_frozen() -> None:
    if _frozen.is_set():
        threading.Event().wait()  # for ever; the process ends with this thread


# --- the role ---------------------------------------------------------------------------------------------


def _authorize(decisions: Decisions, resource: str, arguments: dict[str, Any]) -> None:
    """Raise the error that AWS raises unless the role may do what this integration does."""
    integration = resource.removeprefix("arn:aws:states:::")
    if integration not in _INTEGRATIONS:
        raise stepfunctions._ExecutionError(
            "States.Runtime",
            f"the local cloud does not know which permissions {resource} needs; "
            f"add it to deployment/local/emulator/step_functions.py, which knows {', '.join(_INTEGRATIONS)}",
        )
    error, permissions = _INTEGRATIONS[integration]
    for permission in permissions(arguments):
        _require(decisions, permission, error)


def _require(decisions: Decisions, permission: Permission, error: str) -> None:
    current = _current.get()
    if current is None:
        raise stepfunctions._ExecutionError(error, "no execution, and so no role, is known for this call")
    machine = stepfunctions._state_machines[current.execution["stateMachineArn"]]
    role, session = machine["roleArn"], current.execution["name"][:64]
    if not decisions.allows(
        role,
        session,
        permission.action,
        permission.resource,
        conditions=permission.conditions,
        asked_by="step functions",
    ):
        raise stepfunctions._ExecutionError(
            error,
            f"User: {role} is not authorized to perform: {permission.action} on resource: {permission.resource} "
            "(Status Code: 403)",
        )


def _arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{get_region()}:{get_account_id()}:{rest}"


def _cluster_arn(arguments: dict[str, Any]) -> str:
    cluster = str(arguments.get("Cluster", "default"))
    return cluster if cluster.startswith("arn:") else _arn("ecs", f"cluster/{cluster}")


def _list_objects(arguments: dict[str, Any]) -> list[Permission]:
    conditions = {"s3:prefix": arguments.get("Prefix", ""), "s3:delimiter": arguments.get("Delimiter")}
    return [Permission("s3:ListBucket", f"arn:aws:s3:::{arguments['Bucket']}", conditions)]


def _read_object(arguments: dict[str, Any]) -> list[Permission]:
    action = "s3:GetObjectVersion" if arguments.get("VersionId") else "s3:GetObject"
    return [Permission(action, f"arn:aws:s3:::{arguments['Bucket']}/{arguments['Key']}", {})]


def _list_tasks(arguments: dict[str, Any]) -> list[Permission]:
    cluster = _cluster_arn(arguments)
    instances = _arn("ecs", f"container-instance/{cluster.rsplit('/', 1)[-1]}/*")
    return [Permission("ecs:ListTasks", instances, {"ecs:cluster": cluster})]


def _launch_task(arguments: dict[str, Any]) -> list[Permission]:
    cluster = _cluster_arn(arguments)
    definition = ecs._task_defs.get(ecs._resolve_td_key(str(arguments.get("TaskDefinition", "")))) or {}
    arn = definition.get("taskDefinitionArn") or str(arguments.get("TaskDefinition", ""))
    overrides = arguments.get("Overrides") or {}
    roles = {
        overrides.get("TaskRoleArn") or definition.get("taskRoleArn"),
        overrides.get("ExecutionRoleArn") or definition.get("executionRoleArn"),
    }
    permissions = [Permission("ecs:RunTask", arn, {"ecs:cluster": cluster})]
    permissions += [
        Permission("iam:PassRole", role, {"iam:PassedToService": "ecs-tasks.amazonaws.com"})
        for role in sorted(role for role in roles if role)
    ]
    if arguments.get("Tags") or arguments.get("PropagateTags"):
        tasks = _arn("ecs", f"task/{cluster.rsplit('/', 1)[-1]}/*")
        permissions.append(Permission("ecs:TagResource", tasks, {"ecs:CreateAction": "RunTask"}))
    return permissions


def _launch_and_watch_task(arguments: dict[str, Any]) -> list[Permission]:
    rule = _arn("events", _ECS_EVENTS_RULE)
    watching = [Permission(f"events:{action}", rule, {}) for action in ("PutTargets", "PutRule", "DescribeRule")]
    return _launch_task(arguments) + watching


def _queue(action: str) -> Callable[[dict[str, Any]], list[Permission]]:
    def permissions(arguments: dict[str, Any]) -> list[Permission]:
        name = str(arguments["QueueUrl"]).rstrip("/").rsplit("/", 1)[-1]
        return [Permission(action, _arn("sqs", name), {})]

    return permissions


def _publish(arguments: dict[str, Any]) -> list[Permission]:
    return [Permission("sns:Publish", str(arguments.get("TopicArn") or arguments.get("TargetArn")), {})]


# Integration → the error that AWS names when the role is refused, and the permissions that it needs.
_INTEGRATIONS: dict[str, tuple[str, Callable[[dict[str, Any]], list[Permission]]]] = {
    "aws-sdk:s3:listObjectsV2": ("S3.S3Exception", _list_objects),
    "aws-sdk:s3:headObject": ("S3.S3Exception", _read_object),
    "aws-sdk:ecs:listTasks": ("Ecs.AccessDeniedException", _list_tasks),
    "aws-sdk:sqs:getQueueAttributes": ("Sqs.SqsException", _queue("sqs:GetQueueAttributes")),
    "sqs:sendMessage": ("SQS.AmazonSQSException", _queue("sqs:SendMessage")),
    "aws-sdk:sns:publish": ("Sns.AuthorizationErrorException", _publish),
    "sns:publish": ("SNS.AmazonSNSException", _publish),
    "ecs:runTask": ("ECS.AccessDeniedException", _launch_task),
    "ecs:runTask.sync": ("ECS.AccessDeniedException", _launch_and_watch_task),
}


# --- ecs:runTask ------------------------------------------------------------------------------------------

# What RunTask's own errors are called; all others, throttles and want of capacity too, are ECS.AmazonECSException:
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


def _run_task(decisions: Decisions, resource: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Launch a task; with .sync wait for its end and return it, or raise what AWS raises.

    Failures in the answer raise AmazonECS.Unknown; a task that did not start, was stopped, or has a container with
    another exit code than 0 raises States.TaskFailed, with the task's JSON as the cause.
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
    if not resource.endswith(".sync"):
        return dict(_pascal(answer))
    cluster, task_arn = request.get("cluster", "default"), answer["tasks"][0]["taskArn"]
    task = _wait_for_end(decisions, cluster, task_arn)
    result: dict[str, Any] = _pascal(task)
    if task.get("stopCode") != "EssentialContainerExited" or any(
        container.get("exitCode") != 0 for container in task["containers"]
    ):
        raise stepfunctions._ExecutionError("States.TaskFailed", json.dumps(result))
    return result


def _wait_for_end(decisions: Decisions, cluster: str, task_arn: str) -> dict[str, Any]:
    conditions = {"ecs:cluster": _cluster_arn({"Cluster": cluster})}
    _require(decisions, Permission("ecs:DescribeTasks", task_arn, conditions), "ECS.AccessDeniedException")
    while True:
        _, _, body = ecs._describe_tasks({"cluster": cluster, "tasks": [task_arn]})
        tasks = json.loads(body)["tasks"]
        if tasks and tasks[0]["lastStatus"] == "STOPPED":
            return dict(tasks[0])
        reason = _reason_to_stop()
        if reason:
            _require(decisions, Permission("ecs:StopTask", task_arn, conditions), "ECS.AccessDeniedException")
            ecs._stop_task({"cluster": cluster, "task": task_arn, "reason": reason})
        time.sleep(_POLL_SECONDS)


def _reason_to_stop() -> str:
    current = _current.get()
    if current is None:
        return ""
    if current.execution["status"] != "RUNNING":
        return "The execution that started this task was stopped."
    if current.deadline is not None and time.monotonic() > current.deadline:
        return "The state that started this task timed out."
    return ""


def _pascal(value: Any) -> Any:
    """Return an ECS answer with the member names that Step Functions gives them."""
    if isinstance(value, list):
        return [_pascal(item) for item in value]
    if isinstance(value, dict):
        return {name[:1].upper() + name[1:]: _pascal(item) for name, item in value.items()}
    return value
