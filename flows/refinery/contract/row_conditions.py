"""The conditions of GX on which rows an expectation judges: as text, or as the mappings that GX writes into suites."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

_QUOTED_NAME = re.compile(r"`([^`]*)`")  # pandas writes names with spaces like this
_COLUMN_OF_GX = "col"
_ROWS_OF_PANDAS = "index"  # query() knows the rows' positions by this name


def unreadable_texts(condition: Any) -> list[str]:
    """Return the texts in a condition that are not an expression in either of GX's two languages."""
    return [text for text in _texts_in(condition) if _tree(_QUOTED_NAME.sub("x", text)) is None]


def columns_of(condition: Any) -> set[str]:
    """Return the columns that a condition reads, as far as its form shows them."""
    return {column for part in _parts_of(condition) for column in _columns_in(part)}


def _parts_of(condition: Any) -> Iterator[Any]:
    """The condition and all conditions inside it."""
    yield condition
    if isinstance(condition, Mapping):
        for part in condition.get("conditions") or ():
            yield from _parts_of(part)


def _texts_in(condition: Any) -> Iterator[str]:
    for part in _parts_of(condition):
        text = part.get("pass_through_filter") if isinstance(part, Mapping) else part
        if isinstance(text, str):
            yield text


def _columns_in(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        column = part.get("column")
        if isinstance(column, Mapping) and isinstance(column.get("name"), str):
            yield column["name"]
        part = part.get("pass_through_filter")
    if isinstance(part, str):
        yield from _QUOTED_NAME.findall(part)
        yield from _names_in(_tree(_QUOTED_NAME.sub("True", part)))


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
    """Both of GX's languages for conditions have the form of a Python expression."""
    try:
        return ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return None
