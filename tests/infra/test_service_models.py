"""Tests that the calls of the state machine have the parameters that botocore's service models require and allow.

Step Functions uses PascalCase for all parameters, including those of services whose models use camelCase.
docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html (Using AWS SDK service integrations)
docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html (Run Amazon ECS or Fargate tasks with Step Functions)
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.session
import pytest
from botocore.model import ListShape, OperationModel, Shape, StructureShape

from deployment.aws.packaging import DEFINITIONS

_PREFIX = "arn:${Partition}:states:::"
_SERVICES = {"ecs", "s3", "sqs"}


def calls() -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return the name, the integration and the arguments of every Task state."""
    states = json.loads((DEFINITIONS / "drain.asl.json").read_text(encoding="utf-8"))["States"]
    return [
        (name, state["Resource"].removeprefix(_PREFIX), state["Arguments"])
        for name, state in (states | states["Launch"]["ItemProcessor"]["States"]).items()
        if state["Type"] == "Task"
    ]


def operation_of(integration: str) -> OperationModel:
    """Return botocore's model of an integration, which is written aws-sdk:SERVICE:ACTION or SERVICE:ACTION, optionally
    with .sync."""
    service, action = integration.removeprefix("aws-sdk:").removesuffix(".sync").split(":")
    assert service in _SERVICES
    model = botocore.session.Session().get_service_model(service)
    return model.operation_model(action[:1].upper() + action[1:])


def faults_in(value: Any, shape: Shape | None, where: str) -> Iterator[str]:
    """Yield a sentence about each parameter that is missing, is not in the model, or has a value of another type or
    outside the enumeration."""
    if isinstance(value, str) and value.startswith("{%"):
        return  # the value is known only at run time; test_jsonata.py evaluates the expression
    if isinstance(shape, StructureShape):
        members = {name[:1].upper() + name[1:]: member for name, member in shape.members.items()}
        required = {name[:1].upper() + name[1:] for name in shape.required_members}
        yield from (f"{where}{name} is missing" for name in sorted(required - set(value)))
        for name, one in value.items():
            if name in members:
                yield from faults_in(one, members[name], f"{where}{name}.")
            else:
                yield f"{where}{name} is no parameter"
    elif isinstance(shape, ListShape):
        for one in value:
            yield from faults_in(one, shape.member, where)
    elif shape is not None:
        allowed = getattr(shape, "enum", [])
        if allowed and "${" not in str(value) and value not in allowed:
            yield f"{where[:-1]} may not be {value}"
        if (shape.type_name == "integer") != isinstance(value, int):
            yield f"{where[:-1]} is no {shape.type_name}"


@pytest.mark.parametrize(
    ("name", "integration", "arguments"), calls(), ids=lambda one: one if isinstance(one, str) else ""
)
def test_every_call_fits_the_services_model(name: str, integration: str, arguments: Mapping[str, Any]) -> None:
    assert list(faults_in(arguments, operation_of(integration).input_shape, "")) == [], name


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"Cluster": None, "cluster": "c"}, "cluster is no parameter"),
        ({"TaskDefinition": None}, "TaskDefinition is missing"),
        ({"LaunchType": "FARGAT"}, "LaunchType may not be FARGAT"),
        ({"Count": "1"}, "Count is no integer"),
        (
            {"NetworkConfiguration": {"AwsvpcConfiguration": {"subnets": []}}},
            "AwsvpcConfiguration.subnets is no parameter",
        ),
    ],
)
def test_the_check_finds(change: Mapping[str, Any], fault: str) -> None:
    _, integration, arguments = next(one for one in calls() if one[1] == "ecs:runTask.sync")
    changed = {**copy.deepcopy(dict(arguments)), **change}
    found = faults_in({k: v for k, v in changed.items() if v is not None}, operation_of(integration).input_shape, "")
    assert [one for one in found if fault in one]
