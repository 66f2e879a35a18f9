"""Parse GX's row conditions, which select the rows that an expectation checks. A condition is a string, or a mapping as
GX saves it in a suite."""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

_QUOTED_NAME = re.compile(r"`([^`]*)`")  # how pandas quotes names with spaces
_COLUMN_OF_GX = "col"
_ROWS_OF_PANDAS = "index"  # query() uses this name for the frame's index


def unreadable_texts(condition: Any) -> list[str]:
    """Return the strings in a condition that cannot be parsed in either of GX's two condition languages."""
    texts = (part for part in _parts_of(condition) if isinstance(part, str))
    return [text for text in texts if _tree(_QUOTED_NAME.sub("x", text)) is None]


def columns_of(condition: Any) -> set[str]:
    """Return the names of the columns that a condition refers to, as far as they can be found without evaluating it."""
    names: set[str] = set()
    for part in _parts_of(condition):
        if isinstance(part, str):
            names.update(_QUOTED_NAME.findall(part), _names_in(_tree(_QUOTED_NAME.sub("True", part))))
        column = part.get("column") if isinstance(part, Mapping) else None
        if isinstance(column, Mapping) and isinstance(column.get("name"), str):
            names.add(column["name"])
    return names


def _parts_of(condition: Any) -> Iterator[Any]:
    """Yield the condition, all conditions nested in it, and the filter strings in them that GX passes to pandas."""
    yield condition
    if isinstance(condition, Mapping):
        yield condition.get("pass_through_filter")
        for part in condition.get("conditions") or ():
            yield from _parts_of(part)


def _names_in(tree: ast.Expression | None) -> Iterator[str]:
    nodes = list(ast.walk(tree)) if tree else []
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    called = {id(call.func) for call in calls}
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == _COLUMN_OF_GX:
            yield from (str(part.value) for part in call.args if isinstance(part, ast.Constant))
    for node in nodes:
        if isinstance(node, ast.Name) and id(node) not in called and node.id != _ROWS_OF_PANDAS:
            yield node.id


def _tree(text: str) -> ast.Expression | None:
    """Parse a condition as a Python expression, whose syntax both of GX's condition languages share. Return None if
    that fails."""
    try:
        return ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return None
