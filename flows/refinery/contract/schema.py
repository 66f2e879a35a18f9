"""The JSON Schema of contract.yaml, from which editors complete and check it.

Made by `python -m flows.refinery.contract.schema docs/contract.schema.json`; a test holds the committed one to it.
Put `# yaml-language-server: $schema=<path or URL of it>` on a contract's first line to use it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.refinery.contract.model import BUILT_IN_STEPS, Contract
from flows.refinery.contract.vocabulary import ExpectationType, vocabulary

_COLUMN_FIELDS = frozenset({"column", "column_A", "column_B"})
_SEVERITIES = ["info", "warning", "critical"]


def contract_schema() -> dict[str, Any]:
    """The schema of a contract as it is written in YAML: shorthands included, expectations by name with arguments."""
    schema = Contract.model_json_schema(mode="validation")
    definitions = schema["$defs"]
    fields = schema["properties"]
    fields.pop("folder")
    definitions["Expectation"] = _expectation_schema()
    definitions["Step"] = _step_schema()
    fields["columns"]["additionalProperties"] = {
        "anyOf": [
            {"$ref": "#/$defs/Column"},
            {"enum": definitions["Column"]["properties"]["type"]["enum"], "description": "Only its type."},
        ]
    }
    _allow_one(fields["source"])
    _allow_one(definitions["Output"]["properties"]["partition_by"])
    formats = definitions["FileFormat"]["properties"]["type"]["enum"]
    described = fields["format"].pop("description")
    fields["format"] = {"anyOf": [{"$ref": "#/$defs/FileFormat"}, {"enum": formats}], "description": described}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Sluice contract",
    }


def render_schema() -> str:
    """The schema as it is committed."""
    return json.dumps(contract_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _allow_one(field: dict[str, Any]) -> None:
    several = {key: field.pop(key) for key in ("type", "items") if key in field}
    field["anyOf"] = [{"type": "string"}, several]


def _expectation_schema() -> dict[str, Any]:
    known = {name: kind for name, kind in vocabulary().items() if kind.supported}
    without_arguments = [
        name for name, kind in known.items() if not any(rule.required for rule in kind.arguments.values())
    ]
    return {
        "description": "One expectation of Great Expectations, by its own name and arguments.",
        "anyOf": [
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "properties": {name: _arguments_schema(kind) for name, kind in known.items()},
            },
            {"enum": without_arguments},
        ],
    }


def _arguments_schema(kind: ExpectationType) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, rule in kind.arguments.items():
        properties[name] = {"enum": list(rule.choices)} if rule.choices else {}
        if name in _COLUMN_FIELDS:
            properties[name] = {"type": "string"}
    if "mostly" in properties:
        properties["mostly"] = {"type": "number", "minimum": 0, "maximum": 1}
    properties["severity"] = {"enum": _SEVERITIES}
    properties["description"] = {"type": "string"}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": sorted(name for name, rule in kind.arguments.items() if rule.required),
        "description": f"Judges each {'row' if kind.level == 'row' else 'whole table'}.",
    }


def _step_schema() -> dict[str, Any]:
    own = "^steps\\.[A-Za-z_][A-Za-z0-9_]*$"
    return {
        "description": "One preprocessing step: its name, or its name with arguments.",
        "anyOf": [
            {"enum": sorted(BUILT_IN_STEPS)},
            {"type": "string", "pattern": own},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "properties": {name: {"type": ["object", "null"]} for name in sorted(BUILT_IN_STEPS)},
                "patternProperties": {own: {"type": ["object", "null"]}},
            },
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the schema to a file."""
    parser = argparse.ArgumentParser(prog="python -m flows.refinery.contract.schema")
    parser.add_argument("file", type=Path, help="where to write it")
    parser.parse_args(arguments).file.write_text(render_schema(), encoding="utf-8")


if __name__ == "__main__":
    main()
