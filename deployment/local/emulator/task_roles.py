"""Gives each ECS task valid credentials for its task role.

MiniStack's credentials endpoint returns keys that MiniStack does not register, so with AUTH=true it rejects them. The
endpoint in this module also gives the credentials of any role to a process that has the root user's secret key, so that
a local worker can have a role, like a task on ECS.
"""

import os
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ministack.core.responses import get_account_id, get_region, json_response, request_scope
from ministack.services import ecs, imds, sts

_PATH = "/v2/credentials/"
_OF_A_ROLE = "role/"  # deployment/local/environment.py builds URLs with the same path
_LIFETIME_SECONDS = 6 * 3600  # the same as on ECS


class _Task(NamedTuple):
    role_arn: str
    session: str
    authorization: str
    account: str
    region: str


_tasks: dict[str, _Task] = {}
_lock = threading.Lock()


def install() -> None:
    register_metadata, handle_request = ecs._register_metadata, imds.handle_request

    def with_credentials(
        task_arn: str, cluster_arn: str, definition: Any, container: Any, kind: str, env: Any, *rest: Any
    ) -> Any:
        token = register_metadata(task_arn, cluster_arn, definition, container, kind, env, *rest)
        launch = (ecs._tasks.get(task_arn) or {}).get("overrides") or {}
        _offer_credentials(env, launch.get("taskRoleArn") or definition.get("taskRoleArn"), task_arn)
        return token

    async def answer(method: str, path: str, headers: Any, body: Any, query_params: Any) -> Any:
        if not path.startswith(_PATH):
            return await handle_request(method, path, headers, body, query_params)
        return _credentials(path.removeprefix(_PATH), headers.get("authorization", ""))

    ecs._register_metadata, imds.handle_request = with_credentials, answer


def _offer_credentials(environment: dict[str, str], role_arn: str | None, task_arn: str) -> None:
    if not role_arn:  # without a task role, ECS offers no credentials
        del environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        del environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        return
    name = environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"].rsplit("/", 1)[-1]
    task_id = task_arn.rsplit("/", 1)[-1]
    token = environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    with _lock:
        _tasks[name] = _Task(role_arn, task_id, token, get_account_id(), task_arn.split(":")[3])


def _credentials(name: str, authorization: str) -> Any:
    if name.startswith(_OF_A_ROLE):
        role_arn = f"arn:aws:iam::{get_account_id()}:{name}"
        task: _Task | None = _Task(
            role_arn, "worker", os.environ["AWS_SECRET_ACCESS_KEY"], get_account_id(), get_region()
        )
    else:
        with _lock:
            task = _tasks.get(name)
    if task is None or not secrets.compare_digest(task.authorization.encode(), authorization.encode()):
        return json_response({"code": "AccessDenied", "message": "unknown task, or wrong authorization token"}, 403)
    with request_scope(task.account, task.region):
        return json_response(register_session(task.role_arn, task.session))


def register_session(role_arn: str, session: str) -> dict[str, str]:
    """Register a session of a role, and return its credentials in the format of ECS's credentials endpoint."""
    role_name = role_arn.rsplit("/", 1)[-1]
    key, secret, token = f"ASIA{secrets.token_hex(8).upper()}", secrets.token_hex(20), secrets.token_urlsafe(60)
    expires = time.time() + _LIFETIME_SECONDS
    sts.register_session(
        key,
        {
            "Arn": f"arn:aws:sts::{get_account_id()}:assumed-role/{role_name}/{session}",
            "UserId": f"{role_name}:{session}",
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": expires,
        },
    )
    return {
        "AccessKeyId": key,
        "SecretAccessKey": secret,
        "Token": token,
        "Expiration": datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "RoleArn": role_arn,
    }
