"""Generate the JSON Schema of contract.yaml, which editors use for completion and checks.

`sluice contract schema --output docs/contract.schema.json` writes the schema; a test checks that the committed file is
current. In an editor, a contract uses the schema if its first line is
`# yaml-language-server: $schema=<path or URL of the schema>`.
"""

import json
from typing import Any, Literal, get_args, get_origin

from flows.refinery.contract.model import BUILT_IN_STEPS, KEEP, KEPT, UNIQUE, Contract, Severity
from flows.refinery.validate.expectation_faults import gx_arguments
from flows.refinery.validate.rules import METHODS, level_of

_COLUMN_FIELDS = frozenset({"column", "column_A", "column_B"})


def contract_schema() -> dict[str, Any]:
    """Return the JSON Schema of contract.yaml, including its shorthands and the arguments of every expectation. This
    imports GX."""
    schema = Contract.model_json_schema(mode="validation")
    definitions = schema["$defs"]
    fields = schema["properties"]
    fields.pop("folder")
    definitions["Expectation"] = _expectation_schema()
    definitions["WrittenStep"] = _step_schema()
    fields["columns"]["additionalProperties"] = {
        "anyOf": [
            {"$ref": "#/$defs/Column"},
            {"enum": definitions["Column"]["properties"]["type"]["enum"], "description": "Only the column's type."},
        ]
    }
    _allow_one(fields["source"])
    _allow_one(definitions["OutputOptions"]["properties"]["partition_by"])
    formats = definitions["FileFormat"]["properties"]["type"]["enum"]
    described = fields["format"].pop("description")
    fields["format"] = {"anyOf": [{"$ref": "#/$defs/FileFormat"}, {"enum": formats}], "description": described}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Sluice contract",
    }


def render_schema() -> str:
    """Return the schema as JSON text, as in the committed file."""
    return json.dumps(contract_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _allow_one(field: dict[str, Any]) -> None:
    several = {key: field.pop(key) for key in ("type", "items") if key in field}
    field["anyOf"] = [{"type": "string"}, several]


def _expectation_schema() -> dict[str, Any]:
    arguments = {name: _arguments_schema(name) for name in sorted(METHODS)}
    return {
        "description": "One expectation from Great Expectations, with the name and arguments it has there.",
        "anyOf": [
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "properties": arguments,
            },
            {"enum": [name for name, schema in arguments.items() if not schema["required"]]},
        ],
    }


def _arguments_schema(name: str) -> dict[str, Any]:
    fields = gx_arguments(name)
    properties: dict[str, Any] = {}
    for argument, field in fields.items():
        choices = _choices(field.outer_type_)
        properties[argument] = {"enum": choices} if choices else {}
        if argument in _COLUMN_FIELDS:
            properties[argument] = {"type": "string"}
    if "mostly" in properties:
        properties["mostly"] = {"type": "number", "minimum": 0, "maximum": 1}
    if name in UNIQUE:
        properties[KEEP] = {"enum": list(KEPT)}
    properties["severity"] = {"enum": list(get_args(Severity))}
    properties["description"] = {"type": "string"}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": sorted(argument for argument, field in fields.items() if field.required),
        "description": f"Checks {'each row' if level_of(name) == 'row' else 'the whole table'}.",
    }


def _choices(annotation: Any) -> list[str]:
    """Return the strings that an argument's type allows: the values of a Literal or an enum, also inside a union."""
    if get_origin(annotation) is Literal:
        return sorted(str(value) for value in get_args(annotation) if value is not None)
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return sorted(str(member.value) for member in annotation.__members__.values())
    return sorted({choice for part in get_args(annotation) for choice in _choices(part)})


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
