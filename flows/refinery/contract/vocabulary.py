"""Which expectations a contract may name, and with which arguments: from a table, as importing GX takes seconds.

The table `vocabulary.json` is generated from the installed Great Expectations:
`python -m flows.refinery.contract.vocabulary`. A test holds the two together.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

TABLE = Path(__file__).with_name("vocabulary.json")

# What an expectation has that a contract does not set: identity, rendering, and the batch it runs on.
_INTERNAL_ARGUMENTS = frozenset(
    {
        "id",
        "meta",
        "notes",
        "result_format",
        "description",
        "catch_exceptions",
        "rendered_content",
        "windows",
        "batch_id",
        "library_metadata",
    }
)
_NO_PANDAS = "Great Expectations has it for SQL engines only; use expect_column_values_to_{}match_regex"
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "expect_column_values_to_match_like_pattern": _NO_PANDAS.format(""),
        "expect_column_values_to_match_like_pattern_list": _NO_PANDAS.format("") + "_list",
        "expect_column_values_to_not_match_like_pattern": _NO_PANDAS.format("not_"),
        "expect_column_values_to_not_match_like_pattern_list": _NO_PANDAS.format("not_") + "_list",
        "expect_query_results_to_match_comparison": "it needs an SQL engine; a contract judges one file",
        "expect_table_row_count_to_equal_other_table": "it needs a second table; a contract judges one file",
        "unexpected_rows_expectation": "it needs an SQL engine; a contract judges one file",
    }
)
"""Expectations of the installed GX that a contract cannot use, and why."""

_ROW_LEVEL_BASES = frozenset({"ColumnMapExpectation", "ColumnPairMapExpectation", "MulticolumnMapExpectation"})


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of an expectation.

    Attributes:
        required: whether GX refuses the expectation without it.
        choices: the only values allowed, or empty where any is.
    """

    required: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpectationType:
    """One expectation that GX knows.

    Attributes:
        level: "row" where each row passes or fails by itself, "table" where only the whole does.
        supported: whether it makes sense on one file.
        arguments: by name.
    """

    level: Literal["row", "table"]
    supported: bool
    arguments: dict[str, Argument]


@functools.cache
def vocabulary() -> dict[str, ExpectationType]:
    """Every expectation of the installed GX, by its snake_case name."""
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        name: ExpectationType(
            level=entry["level"],
            supported=entry["supported"],
            arguments={
                argument: Argument(required=rule["required"], choices=tuple(rule["choices"]))
                for argument, rule in entry["arguments"].items()
            },
        )
        for name, entry in table.items()
    }


def read_installed_gx() -> dict[str, dict[str, Any]]:
    """The same table, read from the installed Great Expectations (takes seconds to import)."""
    importlib.import_module("great_expectations.expectations")  # registers them all
    registry: Any = importlib.import_module("great_expectations.expectations.registry")
    names: list[str] = sorted(registry.list_registered_expectation_implementations())
    return {name: asdict(_describe(name, registry.get_expectation_impl(name))) for name in names}


def _describe(name: str, implementation: Any) -> ExpectationType:
    bases = {base.__name__ for base in implementation.__mro__}
    return ExpectationType(
        level="row" if bases & _ROW_LEVEL_BASES else "table",
        supported=name not in UNSUPPORTED,
        arguments={
            argument: Argument(required=bool(field.required), choices=_choices(field.outer_type_))
            for argument, field in implementation.__fields__.items()
            if argument not in _INTERNAL_ARGUMENTS
        },
    )


def _choices(annotation: Any) -> tuple[str, ...]:
    """The string values of a Literal, wherever it stands in a union; an enum's values likewise."""
    if get_origin(annotation) is Literal:
        return tuple(sorted(str(value) for value in get_args(annotation) if value is not None))
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return tuple(sorted(str(member.value) for member in annotation.__members__.values()))
    return tuple(sorted({choice for part in get_args(annotation) for choice in _choices(part)}))


def render_table() -> str:
    """The table as it is committed."""
    return json.dumps(read_installed_gx(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    TABLE.write_text(render_table(), encoding="utf-8")
