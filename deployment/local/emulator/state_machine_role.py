"""Makes state machines call AWS services with their role, so that a missing permission is found locally. MiniStack
calls the services as the root user.

docs.aws.amazon.com/step-functions/latest/dg/procedure-create-iam-role.html
"""

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from ministack.core.responses import get_account_id, get_region
from ministack.services import ecs, stepfunctions

from deployment.local.emulator.permissions import role_allows

# With this rule, ECS notifies Step Functions that a task has stopped. The role must be allowed to create it:
# docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html#sync-async-iam-policies
_ECS_EVENTS_RULE = "rule/StepFunctionsGetEventsForECSTaskRule"


class Permission(NamedTuple):
    """A permission that a state machine's role needs: an action on a resource, with the values of condition keys."""

    action: str
    resource: str
    conditions: dict[str, Any]


class CurrentState(NamedTuple):
    """The execution that runs in this thread, and the deadline of its current state."""

    execution: dict[str, Any]
    deadline: float | None  # a value of time.monotonic(); None if the state has no timeout


current_state: ContextVar[CurrentState | None] = ContextVar("sluice_execution", default=None)
_frozen = threading.Event()


def freeze() -> None:
    """Block every execution before its next step, because the emulator is stopping. The executions resume at the next
    start."""
    _frozen.set()


def install() -> None:
    execute, invoke, invoke_in_time = (
        stepfunctions._execute_task,
        stepfunctions._invoke_resource,
        stepfunctions._invoke_resource_with_timeout,
    )

    def execute_task(state: Any, raw_input: Any, execution: Any, context: Any) -> Any:
        _block_if_frozen()
        token = current_state.set(CurrentState(execution, None))
        try:
            return execute(state, raw_input, execution, context)
        finally:
            current_state.reset(token)

    def invoke_with_timeout(resource: str, arguments: Any, seconds: Any) -> Any:
        current = current_state.get()
        if current is None:
            return invoke_in_time(resource, arguments, seconds)
        token = current_state.set(current._replace(deadline=time.monotonic() + float(seconds)))
        try:
            return invoke_in_time(resource, arguments, seconds)
        finally:
            current_state.reset(token)
            _block_if_frozen()

    def invoke_as_role(resource: str, arguments: Any) -> Any:
        _authorize(resource, arguments)
        try:
            return invoke(resource, arguments)
        finally:
            _block_if_frozen()

    stepfunctions._execute_task = execute_task
    stepfunctions._invoke_resource = invoke_as_role
    stepfunctions._invoke_resource_with_timeout = invoke_with_timeout


def _block_if_frozen() -> None:
    if _frozen.is_set():
        threading.Event().wait()  # forever, because the process is about to end


# --- the role ---------------------------------------------------------------------------------------------


def _authorize(resource: str, arguments: dict[str, Any]) -> None:
    """Raise the same error as AWS unless the state machine's role has the permissions that the integration needs."""
    integration = resource.removeprefix("arn:aws:states:::")
    if integration not in _INTEGRATIONS:
        raise stepfunctions._ExecutionError(
            "States.Runtime",
            f"the local cloud does not support {resource}; add the permissions that it needs to "
            f"deployment/local/emulator/state_machine_role.py, which supports {', '.join(_INTEGRATIONS)}",
        )
    error, permissions = _INTEGRATIONS[integration]
    for permission in permissions(arguments):
        require(permission, error)


def require(permission: Permission, error: str) -> None:
    """Raise a Step Functions error with the name `error` unless the role of the running state machine has the given
    permission."""
    current = current_state.get()
    if current is None:
        raise stepfunctions._ExecutionError(error, "the execution, and therefore the role, of this call is not known")
    machine = stepfunctions._state_machines[current.execution["stateMachineArn"]]
    role, session = machine["roleArn"], current.execution["name"][:64]
    action, resource, conditions = permission
    if not role_allows(role, session, action, resource, conditions=conditions, asked_by="step functions"):
        raise stepfunctions._ExecutionError(
            error,
            f"User: {role} is not authorized to perform: {action} on resource: {resource} (Status Code: 403)",
        )


def _arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{get_region()}:{get_account_id()}:{rest}"


def cluster_arn(arguments: dict[str, Any]) -> str:
    """Return the ARN of the cluster that an ECS integration's arguments name."""
    cluster = str(arguments.get("Cluster", "default"))
    return cluster if cluster.startswith("arn:") else _arn("ecs", f"cluster/{cluster}")


def _list_objects(arguments: dict[str, Any]) -> list[Permission]:
    conditions = {"s3:prefix": arguments.get("Prefix", ""), "s3:delimiter": arguments.get("Delimiter")}
    return [Permission("s3:ListBucket", f"arn:aws:s3:::{arguments['Bucket']}", conditions)]


def _list_tasks(arguments: dict[str, Any]) -> list[Permission]:
    cluster = cluster_arn(arguments)
    instances = _arn("ecs", f"container-instance/{cluster.rsplit('/', 1)[-1]}/*")
    return [Permission("ecs:ListTasks", instances, {"ecs:cluster": cluster})]


def _launch_task(arguments: dict[str, Any]) -> list[Permission]:
    cluster = cluster_arn(arguments)
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


def _count_messages(arguments: dict[str, Any]) -> list[Permission]:
    name = str(arguments["QueueUrl"]).rstrip("/").rsplit("/", 1)[-1]
    return [Permission("sqs:GetQueueAttributes", _arn("sqs", name), {})]


# By integration: the error that AWS returns if the role lacks a permission, and the permissions that are needed.
_INTEGRATIONS: dict[str, tuple[str, Callable[[dict[str, Any]], list[Permission]]]] = {
    "aws-sdk:s3:listObjectsV2": ("S3.S3Exception", _list_objects),
    "aws-sdk:ecs:listTasks": ("Ecs.AccessDeniedException", _list_tasks),
    "aws-sdk:sqs:getQueueAttributes": ("Sqs.SqsException", _count_messages),
    "ecs:runTask.sync": ("ECS.AccessDeniedException", _launch_and_watch_task),
}
