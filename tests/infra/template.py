"""Read the template for the tests: intrinsic functions as plain mappings, values as their text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deployment.aws.deploy_stack import TEMPLATE

Template = Mapping[str, Any]


def load_template(path: Path = TEMPLATE) -> Template:
    """Return the template with `!Ref x` as {"Ref": "x"} and so on."""
    from cfnlint.decode import cfn_yaml  # only here: its import takes a second

    loaded: Template = cfn_yaml.load(str(path))
    return loaded


def resource(template: Template, name: str) -> Mapping[str, Any]:
    """Return one resource by its logical id."""
    found: Mapping[str, Any] = template["Resources"][name]
    return found


def resources_of(template: Template, kind: str) -> dict[str, Mapping[str, Any]]:
    """Return the resources of one type by their logical ids."""
    return {name: one for name, one in template["Resources"].items() if one["Type"] == kind}


def defaults_of(template: Template, field: str) -> dict[str, Any]:
    """Return one field (Default, MaxValue, …) of every parameter that has it."""
    return {name: one[field] for name, one in template["Parameters"].items() if field in one}


def text_of(value: object) -> str:
    """Return a value in a form that can be compared: references as ${Name}, all branches of a condition."""
    if isinstance(value, Mapping):
        ((function, argument),) = value.items()
        if function == "Ref":
            return f"${{{argument}}}"
        if function == "Fn::GetAtt":
            return "${" + (argument if isinstance(argument, str) else ".".join(argument)) + "}"
        if function == "Fn::Sub" and isinstance(argument, list):
            return str(argument[0])
        return str(argument)
    return str(value)


def statements_of(policy_document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the statements of a policy, including conditional ones."""
    for statement in policy_document["Statement"]:
        if "Fn::If" in statement:
            yield from (branch for branch in statement["Fn::If"][1:] if "Effect" in branch)
        else:
            yield statement


def listed(value: object) -> list[Any]:
    """Return a value, or a list of values, as a list."""
    return list(value) if isinstance(value, list) else [value]
