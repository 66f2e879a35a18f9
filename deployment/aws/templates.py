"""Reads a CloudFormation template from a YAML file, and converts it to the compact JSON that is sent to
CloudFormation."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from deployment.aws.retention import Retentions, with_retention

MAX_INLINE_BYTES = 51_200  # CloudFormation reads larger templates only from S3


class TemplateUnreadable(ValueError):
    """The file is not YAML, or is not a CloudFormation template with resources."""


class _Loader(yaml.CSafeLoader):  # ten times faster than SafeLoader
    """Reads YAML with the short forms of CloudFormation's functions: `!Ref x` becomes {"Ref": "x"}."""


def _intrinsic(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if name == "GetAtt":
            value = str(value).split(".", 1)  # the short form, which JSON does not have
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _intrinsic)


def default_parameters(path: Path) -> dict[str, str]:
    """Return the default values of a template's parameters, by name; empty if the file is not a template."""
    try:
        template = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError:
        return {}  # template_body reports the error
    parameters = template.get("Parameters", {}) if isinstance(template, dict) else {}
    return {name: str(one["Default"]) for name, one in parameters.items() if "Default" in one}


def without_texts(body: str) -> str:
    """Return a smaller template, without outputs, metadata and descriptions. Its change set shows the same changes,
    because a change set lists only resources."""
    template = json.loads(body)
    for section in ("Outputs", "Metadata", "Description"):
        template.pop(section, None)
    for parameter in template.get("Parameters", {}).values():
        parameter.pop("Description", None)
        parameter.pop("ConstraintDescription", None)
    return json.dumps(template, separators=(",", ":"), ensure_ascii=False)


def template_body(path: Path, *, only: Collection[str] | None = None, retentions: Retentions = {}) -> str:  # noqa: B006 (only read)
    """Return a template as compact JSON, without the resources' metadata, which is only for linters and readers.

    Args:
        only: the logical IDs of the resources and outputs to keep; if None, all are kept.
        retentions: how long the objects of each dataset are kept; lifecycle rules are added for them.

    Raises:
        TemplateUnreadable: the file is not a template.
    """
    try:
        template = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise TemplateUnreadable(f"{path} is not YAML: {error}") from error
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        raise TemplateUnreadable(f"{path} has no resources")
    if nameless := [
        name for name, one in template["Resources"].items() if not isinstance(one, dict) or "Type" not in one
    ]:
        raise TemplateUnreadable(f"{path}: {nameless[0]} has no Type")
    for section in ("Resources", "Outputs"):
        kept = template.get(section, {})
        if only is not None:
            kept = {name: one for name, one in kept.items() if name in only}
        template[section] = {name: _without_notes(one) for name, one in kept.items()}
    template["Resources"] = with_retention(template["Resources"], retentions)
    if not template["Outputs"]:
        del template["Outputs"]
    return json.dumps(template, separators=(",", ":"), ensure_ascii=False)


def _without_notes(entry: Any) -> Any:
    return {name: value for name, value in entry.items() if name != "Metadata"} if isinstance(entry, dict) else entry
