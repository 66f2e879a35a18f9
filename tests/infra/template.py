"""Reads the CloudFormation template for tests, with intrinsic functions as plain mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from deployment.aws.deploy_stack import TEMPLATE

Template = Mapping[str, Any]


@cache
def load_template(path: Path = TEMPLATE) -> Template:
    """Return the template as nested mappings, in which `!Ref x` is {"Ref": "x"}, and likewise for other functions. All
    tests of a process share them, so they must not be changed."""
    from cfnlint.decode import cfn_yaml  # imported here, because the import takes a second

    loaded: Template = cfn_yaml.load(str(path))
    return loaded


def resource(template: Template, name: str) -> Mapping[str, Any]:
    """Return the resource with the given logical ID."""
    found: Mapping[str, Any] = template["Resources"][name]
    return found


def resources_of(template: Template, kind: str) -> dict[str, Mapping[str, Any]]:
    """Return the resources of one type, by logical ID."""
    return {name: one for name, one in template["Resources"].items() if one["Type"] == kind}


def defaults_of(template: Template, field: str) -> dict[str, Any]:
    """Return one field (such as Default or MaxValue) of every parameter that has it, by the parameter's name."""
    return {name: one[field] for name, one in template["Parameters"].items() if field in one}


def text_of(value: object) -> str:
    """Return a value as a string that tests can compare.

    Ref becomes ${Name}, and Fn::GetAtt becomes ${Name.Attribute}. Fn::Sub becomes its string, without the variables.
    Any other function becomes the string form of its argument.
    """
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
    """Yield the statements of a policy, including those that depend on a condition."""
    for statement in policy_document["Statement"]:
        if "Fn::If" in statement:
            yield from (branch for branch in statement["Fn::If"][1:] if "Effect" in branch)
        else:
            yield statement


def listed(value: object) -> list[Any]:
    """Return the value as a list: a list is copied, and any other value becomes a list with one item."""
    return list(value) if isinstance(value, list) else [value]
