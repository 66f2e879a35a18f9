"""Authorizes requests about ECS tasks by the tasks' ARNs, as AWS does. MiniStack uses the cluster's ARN.

docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html
"""

import json
from typing import Any

from ministack.core import iam_actions

_ABOUT_TASKS = ("DescribeTasks", "StopTask")


def install() -> None:
    by_cluster = iam_actions.extract_resource_arn

    def by_task(service: str, method: str, path: str, headers: dict[str, str], body: bytes, *rest: Any) -> str:
        arn = str(by_cluster(service, method, path, headers, body, *rest))
        action = next((value for name, value in headers.items() if name.lower() == "x-amz-target"), "")
        if service != "ecs" or action.rpartition(".")[2] not in _ABOUT_TASKS:
            return arn
        given = json.loads(body)
        task = str((given.get("tasks") or [given.get("task", "")])[0])
        cluster, _, name = arn.rpartition(":cluster/")
        return task if task.startswith("arn:") else f"{cluster}:task/{name}/{task}"

    iam_actions.extract_resource_arn = by_task
