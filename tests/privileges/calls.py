"""Records what a stack's roles may do and what they did, so that `python -m tests.privileges` can compare them.

A suite that starts a local cloud with a stack wraps it in `recorded`. Each cloud gets a separate file, because suites
run in parallel.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from deployment import PROJECT_ROOT
from deployment.local.cloud import LocalCloud
from tests.emulator.records import decisions_of

FOLDER = PROJECT_ROOT / ".pytest_cache" / "calls"


@dataclass(frozen=True)
class Call:
    """One IAM decision: whether a role was allowed to perform an action on a resource."""

    role: str
    action: str
    resource: str
    allowed: bool


@dataclass(frozen=True)
class Record:
    """The policies of one stack's roles as they were deployed, and every distinct call that the roles made.

    Attributes:
        policies: logical ID of a role → its statements, in which all names have been resolved.
    """

    policies: dict[str, list[dict[str, Any]]]
    calls: list[Call]


@contextlib.contextmanager
def recorded(cloud: LocalCloud, stack_name: str) -> Iterator[None]:
    """Write a record of what the roles of a stack did within the context, when the context ends."""
    names = _roles(cloud, stack_name)
    policies = {logical_id: _statements(cloud, name) for name, logical_id in names.items()}
    try:
        yield
    finally:
        calls = {
            Call(names[one["role"]], one["action"], one["resource"], one["allowed"])
            for one in decisions_of(cloud.state_dir)
            if one["role"] in names
        }
        _save(Record(policies, sorted(calls, key=lambda call: (call.role, call.action, call.resource))))


def _roles(cloud: LocalCloud, stack_name: str) -> dict[str, str]:
    pages = cloud.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack_name)
    resources = [one for page in pages for one in page["StackResourceSummaries"]]
    roles = (one for one in resources if one["ResourceType"] == "AWS::IAM::Role")
    return {one["PhysicalResourceId"]: one["LogicalResourceId"] for one in roles}


def _statements(cloud: LocalCloud, role: str) -> list[dict[str, Any]]:
    iam = cloud.client("iam")
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = (iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names)
    return [statement for document in documents for statement in document["Statement"]]


def _save(record: Record) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{uuid.uuid4().hex}.json").write_text(json.dumps(asdict(record)), encoding="utf-8")


def load() -> list[Record]:
    """Return every record in the folder."""
    loaded = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json")))
    return [Record(one["policies"], [Call(**call) for call in one["calls"]]) for one in loaded]
