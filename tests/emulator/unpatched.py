"""Checks, in MiniStack's environment and without this project's patches, whether MiniStack still differs from AWS.

    .venv-cloud/bin/python -m tests.emulator.unpatched

It prints a JSON object that maps each patch's module to whether MiniStack still needs it. A patch that is no longer
needed can be deleted. Each check has the name of its patch's module.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_ROLE = "arn:aws:iam::000000000000:role/may-do-nothing"
_CLUSTER = "arn:aws:ecs:eu-central-1:000000000000:cluster/tests"
_MACHINES = "arn:aws:states:eu-central-1:000000000000:stateMachine"
_WAITING = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 60, "End": True}}}
_CONTAINER = {
    "name": "worker",
    "image": "sluice",
    "user": "10001",
    "readonlyRootFilesystem": True,
    "stopTimeout": 7,
    "memory": 512,
}


def containers() -> bool:
    """Return whether ECS has nothing to run a task with if Docker is missing."""
    from ministack.services import ecs

    return ecs._get_docker() is None


def pushed_images() -> bool:
    """Return whether ECS ignores the emulator's registry. A task then runs whatever the engine finds under the image's
    name."""
    from ministack.services import ecs

    return "ecr" not in vars(ecs)


def docker_tasks() -> bool:
    """Return whether a container is started without its user and without a read-only root file system."""
    return not {"user", "read_only"} & _container_options().keys()


def memory_limit() -> bool:
    """Return whether a container is started without a memory limit."""
    return "mem_limit" not in _container_options()


def execution_role() -> bool:
    """Return whether a container is started even if its execution role does not exist in IAM."""
    return bool(_container_options())


def template_secrets() -> bool:
    """Return whether a template's container secrets keep CloudFormation's property names, which ECS does not read."""
    from ministack.services.cloudformation import provisioners

    secret = {"Name": "KEY", "ValueFrom": "arn:aws:secretsmanager:eu-central-1:000000000000:secret:key"}
    (normalized,) = provisioners._normalize_container_defs([{"Name": "worker", "Secrets": [secret]}])
    return bool(normalized["secrets"] == [secret])


def template_boundaries() -> bool:
    """Return whether a role that a template creates has no permissions boundary, although the template sets one."""
    from ministack.services import iam
    from ministack.services.cloudformation import provisioners

    trusted = {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [trusted]}
    given = {"PermissionsBoundary": "arn:aws:iam::000000000000:policy/b", "AssumeRolePolicyDocument": trust}
    name, _ = provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"]["create"]("Role", given, "stack")
    return not iam._roles[name].get("PermissionsBoundary")


def task_roles() -> bool:
    """Return whether the credentials from a task's credentials endpoint belong to no STS session."""
    from ministack.services import imds, sts

    _, _, body = asyncio.run(imds.handle_request("GET", "/v2/credentials/some-task", {}, b"", {}))
    return json.loads(body)["AccessKeyId"] not in sts._sessions


def task_stop() -> bool:
    """Return whether StopTask reports a task as STOPPED with exit code 0 before its container was asked to stop."""
    from ministack.services import ecs

    arn = "arn:aws:ecs:eu-central-1:000000000000:task/tests/0123456789abcdef"
    ecs._clusters["tests"] = {"clusterName": "tests", "clusterArn": _CLUSTER, "status": "ACTIVE"}
    ecs._tasks[arn] = {
        "taskArn": arn,
        "clusterArn": _CLUSTER,
        "lastStatus": "RUNNING",
        "desiredStatus": "RUNNING",
        "containers": [{"name": "worker", "lastStatus": "RUNNING"}],
        "_docker_ids": [],
    }
    _, _, body = ecs._stop_task({"cluster": "tests", "task": arn})
    task = json.loads(body)["task"]
    return (task["lastStatus"], task["containers"][0]["exitCode"]) == ("STOPPED", 0)


def state_machine_role() -> bool:
    """Return True if a state machine may call a service regardless of its role; otherwise the call raises an error.

    No execution, and so no role, is known here.
    """
    from ministack.services import stepfunctions

    stepfunctions._invoke_resource("arn:aws:states:::aws-sdk:sqs:listQueues", {})
    return True


def run_task_sync() -> bool:
    """Return whether ecs:runTask.sync succeeds although the task failed, with a result that has camelCase names."""
    from ministack.services import ecs, stepfunctions

    failed = {"taskArn": "arn", "lastStatus": "STOPPED", "containers": [{"exitCode": 1}]}
    originals = ecs._run_task, ecs._describe_tasks
    ecs._run_task = ecs._describe_tasks = lambda _: (200, {}, json.dumps({"tasks": [failed]}).encode())
    try:
        answer = stepfunctions._SERVICE_DISPATCH["arn:aws:states:::ecs:runTask"](
            "arn:aws:states:::ecs:runTask.sync", {}
        )
    finally:
        ecs._run_task, ecs._describe_tasks = originals
    return bool(answer == {"tasks": [failed]})


def schedules() -> bool:
    """Return whether a schedule starts an execution regardless of its role's permissions."""
    from ministack.services import eventbridge, stepfunctions

    machine = _machine("scheduled", {"StartAt": "Only", "States": {"Only": {"Type": "Pass", "End": True}}})
    event = {"source": "aws.scheduler", "detail": {}, "resources": []}
    eventbridge._invoke_target({"Arn": machine, "RoleArn": _ROLE, "Input": "{}"}, event, {"Name": "every-minute"})
    return any(execution.get("stateMachineArn") == machine for execution in stepfunctions._executions.all_values())


def start_execution() -> bool:
    """Return whether StartExecution fails if a running execution has the same name and input. On AWS it succeeds."""
    from ministack.services import stepfunctions

    _machine("again", _WAITING)
    request = {"stateMachineArn": f"{_MACHINES}:again", "name": "same", "input": "{}"}
    stepfunctions._start_execution(request)
    status, _, _ = stepfunctions._start_execution(request)
    return bool(status == 400)


def execution_end() -> bool:
    """Return whether an execution that was stopped can still change to FAILED."""
    from ministack.services import stepfunctions

    execution = {"executionArn": "arn", "stateMachineArn": "arn", "name": "n", "status": "ABORTED", "events": []}
    execution |= {"startDate": "", "input": "{}"}
    stepfunctions._fail_execution(execution, "States.MapFailed", "an item failed")
    return execution["status"] == "FAILED"


def execution_timeout() -> bool:
    """Return whether an execution runs for longer than its state machine's TimeoutSeconds."""
    from ministack.services import stepfunctions

    _machine("slow", {"TimeoutSeconds": 1, **_WAITING})
    request = {"stateMachineArn": f"{_MACHINES}:slow", "name": "slow", "input": "{}"}
    arn = json.loads(stepfunctions._start_execution(request)[2])["executionArn"]
    time.sleep(2)
    return bool(stepfunctions._executions[arn]["status"] == "RUNNING")


def durability() -> bool:
    """Return whether an execution that was running when MiniStack stopped is FAILED after MiniStack starts again."""
    from ministack.core.responses import AccountRegionScopedDict
    from ministack.services import stepfunctions

    saved = AccountRegionScopedDict()
    saved["arn:aws:states:eu-central-1:000000000000:execution:m:e"] = {"status": "RUNNING", "events": []}
    stepfunctions._restore_state({"executions": saved})
    (execution,) = (one for one in stepfunctions._executions.all_values() if one.get("error"))
    return bool(execution["status"] == "FAILED")


def lambda_lines() -> bool:
    """Return whether a function's output is collected for less than a second, without a marker at its end."""
    import inspect

    from ministack.core import lambda_runtime

    waits = inspect.signature(lambda_runtime.Worker._drain_stderr_bounded).parameters
    return bool(waits["hard_cap"].default < 1)


def lambda_json_logs() -> bool:
    """Return whether Lambda's own log lines are plain text even if the function asks for JSON."""
    from ministack.services import cloudwatch_logs, lambda_svc

    function = {"FunctionName": "f", "Version": "$LATEST", "LoggingConfig": {"LogFormat": "JSON", "LogGroup": "/f"}}
    lambda_svc._emit_lambda_logs({"config": function}, "request", "a line", False, 1)
    (stream,) = cloudwatch_logs._log_groups["/f"]["streams"].values()
    return str(stream["events"][0]["message"]).startswith("START RequestId: request")


def message_moves() -> bool:
    """Return whether SQS does not support StartMessageMoveTask."""
    from ministack.services import sqs

    return "StartMessageMoveTask" not in sqs._HANDLERS


def transport() -> bool:
    """Return whether a request over loopback counts as a request without TLS."""
    from ministack.core import iam_evaluator

    iam_evaluator.pin_request_origin("127.0.0.1", False)
    return bool(iam_evaluator._request_origin.get() == ("127.0.0.1", False))


def version_ranges() -> bool:
    """Return whether a request for a range of an object version returns the whole object."""
    from ministack.services import s3

    s3._create_bucket("bucket", b"", {})
    s3._put_bucket_versioning("bucket", b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
    _, headers, _ = s3._put_object("bucket", "key", b"0123456789", {})
    version = next(value for name, value in headers.items() if name.lower() == "x-amz-version-id")
    status, _, body = s3._get_object("bucket", "key", {"range": "bytes=0-3"}, {"versionId": [version]})
    return (status, body) == (200, b"0123456789")


def condition_keys() -> bool:
    """Return whether IAM sees neither the boundary in a CreateRole request nor the condition of a conditional write."""
    from ministack.core import iam_actions

    params = {"RoleName": ["a"], "PermissionsBoundary": ["arn"]}
    boundary = iam_actions.request_tag_context("iam", "iam:CreateRole", b"", params)
    write = iam_actions.s3_service_context("s3:PutObject", {}, "/bucket/key", {"if-none-match": "*"})
    return (boundary, write) == ({}, {})


def batch_calls() -> bool:
    """Return whether a batch request to SQS requires a permission that does not exist on AWS."""
    from ministack.core import iam_actions

    headers = {"x-amz-target": "AmazonSQS.DeleteMessageBatch"}
    action = iam_actions.extract_iam_action("sqs", "POST", "/", headers, b"{}", {})
    return str(action) == "sqs:DeleteMessageBatch"


def task_arns() -> bool:
    """Return whether the permission for a request about a task is checked against the ARN of its cluster."""
    from ministack.core import iam_actions

    body = json.dumps({"cluster": "tests", "tasks": ["one"]}).encode()
    headers = {"x-amz-target": "AmazonEC2ContainerServiceV20141113.DescribeTasks"}
    arn = iam_actions.extract_resource_arn("ecs", "POST", "/", headers, body, {}, "eu-central-1", "000000000000")
    return str(arn) == _CLUSTER


def _machine(name: str, definition: dict[str, Any]) -> str:
    """Create a state machine, and return its ARN."""
    from ministack.services import stepfunctions

    arn = f"{_MACHINES}:{name}"
    stepfunctions._state_machines[arn] = {
        "stateMachineArn": arn,
        "name": name,
        "roleArn": _ROLE,
        "definition": json.dumps(definition),
        "type": "STANDARD",
        "status": "ACTIVE",
    }
    return arn


def _container_options() -> dict[str, Any]:
    from ministack.services import ecs

    definition = {"family": "f", "executionRoleArn": _ROLE, "volumes": []}
    options: dict[str, Any] = ecs._build_run_kwargs(
        _CONTAINER, definition, {}, {}, None, False, "task", "arn:aws:ecs:eu-central-1:0:task/c/t", None, "cluster"
    )
    return options


STILL_NEEDED: dict[str, Callable[[], bool]] = {
    check.__name__: check
    for check in (
        condition_keys,
        containers,
        docker_tasks,
        durability,
        execution_end,
        execution_role,
        execution_timeout,
        lambda_json_logs,
        lambda_lines,
        memory_limit,
        message_moves,
        pushed_images,
        schedules,
        start_execution,
        task_arns,
        batch_calls,
        run_task_sync,
        state_machine_role,
        template_boundaries,
        template_secrets,
        task_roles,
        task_stop,
        transport,
        version_ranges,
    )
}


def main() -> None:
    """Print which patches are still needed."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            AUTH="true", MINISTACK_REGION="eu-central-1", STATE_DIR=folder, S3_DATA_DIR=folder, PERSIST_STATE="0"
        )
        # Hide Docker even if it is installed, because the checks are about MiniStack and not about the Docker client.
        sys.modules["docker"] = SimpleNamespace()  # type: ignore[assignment]
        print(json.dumps({name: check() for name, check in STILL_NEEDED.items()}))


if __name__ == "__main__":
    assert Path.cwd().joinpath("deployment").is_dir(), "run it from the project's root"
    main()
