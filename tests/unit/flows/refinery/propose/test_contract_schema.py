"""The committed JSON Schema for contracts matches the model and the installed version of Great Expectations."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.refinery.propose.contract_schema import contract_schema, render_schema

ROOT = Path(__file__).parents[5]
jsonschema: Any = importlib.import_module("jsonschema")  # a dependency of Great Expectations, without type information


def test_the_committed_schema_is_that_of_the_model() -> None:
    committed = (ROOT / "docs" / "contract.schema.json").read_text(encoding="utf-8")
    assert committed == render_schema(), "run: sluice contract schema --output docs/contract.schema.json"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "flows" / "contracts").glob("*/contract.yaml")), ids=lambda p: p.parent.name
)
def test_the_schema_accepts_every_shipped_contract(path: Path) -> None:
    jsonschema.Draft202012Validator(contract_schema()).validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"expectations": [{"expect_colum_to_exist": {"column": "a"}}]},
        {"expectations": [{"expect_column_to_exist": {"colum": "a"}}]},
        {"expectations": ["expect_column_to_exist"]},
        {"preprocess": ["drop_duplicate"]},
        {"columns": {"a": "strin"}},
        {"format": "cvs"},
        {"folder": "/"},
        {"sorce": "x"},
    ],
)
def test_the_schema_rejects_wrong_contracts(wrong: dict[str, Any]) -> None:
    json.dumps(wrong)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(contract_schema()).validate({"dataset": "a", **wrong})
