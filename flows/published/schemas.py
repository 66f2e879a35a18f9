"""Combine the columns of several runs by name, without changing a value."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from flows.refinery.errors import TerminalError


class ColumnsDiffer(TerminalError):
    """A column has different types in several runs of a dataset, and combining them would change values, or a column
    has the name of a source column that was requested."""


@dataclass(frozen=True)
class SchemaOfRun:
    """The columns of one output file of a run. A column without values in this file may have the type null."""

    run_id: str
    schema: pa.Schema


def joined_schema(dataset: str, schemas: Iterable[SchemaOfRun]) -> pa.Schema:
    """Return the columns of all runs, in the order in which they first occur.

    Rows of a run that lacks a column have missing values there. A column without values takes the type that the column
    has elsewhere. Types of numbers are combined: integers and floating-point numbers into floating-point numbers. Other
    types cannot be combined.

    Raises:
        ColumnsDiffer: types cannot be combined; the message names the column, its types, and one run per type.
    """
    runs_by_type: dict[str, dict[pa.DataType, str]] = defaultdict(dict)
    for each in schemas:
        for column in each.schema:
            runs_by_type[column.name].setdefault(column.type, each.run_id)
    return pa.schema([(name, _joined_type(dataset, name, runs)) for name, runs in runs_by_type.items()])


def _joined_type(dataset: str, name: str, runs: dict[pa.DataType, str]) -> pa.DataType:
    types = [each for each in runs if not pa.types.is_null(each)]
    if not types:
        return pa.string()
    if len(types) == 1:
        return types[0]
    if all(map(_is_number, types)):
        return _joined_number(types)
    found = ", ".join(f"{each} in run {runs[each]}" for each in types)
    raise ColumnsDiffer(
        f"dataset {dataset}: column {name!r} is {found}; read the runs one by one, or process the older files again"
        " under the current contract"
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _joined_number(types: Sequence[pa.DataType]) -> pa.DataType:
    same = pa.unify_schemas([pa.schema([("number", each)]) for each in types], promote_options="permissive")
    return same.field(0).type
