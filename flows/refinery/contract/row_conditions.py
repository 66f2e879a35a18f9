"""The conditions of GX on which rows an expectation judges: as text, or as the mappings that GX writes into suites."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN"})
_QUOTED_NAME = re.compile(r"`([^`]*)`")  # pandas writes names with spaces so
_COLUMN_OF_GX = frozenset({"col"})
_ROWS_OF_PANDAS = "index"  # its query() knows the rows' places by this name
_MAX_DEPTH = 20


def condition_fault(condition: Any) -> str | None:
    """Why rows cannot be chosen by a condition, as the end of a sentence; None where they can."""
    if isinstance(condition, str):
        return None if _tree(condition) else f"{condition!r} cannot be read; for instance 'country == \"DE\"'"
    if not isinstance(condition, Mapping):
        return f"is {condition!r}; it is text (put quotes around it), or a condition as GX writes it into a suite"
    return None if _is_sound(condition, 0) else f"{dict(condition)!r} is no condition as GX writes it into a suite"


def columns_of(condition: Any) -> set[str]:
    """The columns that a condition reads, as far as its form says so."""
    if isinstance(condition, str):
        return set(_columns_in_text(condition))
    return set(_columns_in_mapping(condition)) if isinstance(condition, Mapping) else set()


def _tree(condition: str) -> ast.Expression | None:
    """Both of GX's languages for conditions have the form of a Python expression."""
    try:
        return ast.parse(_QUOTED_NAME.sub("x", condition).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return None


def _columns_in_text(condition: str) -> Iterator[str]:
    yield from _QUOTED_NAME.findall(condition)
    plain = _QUOTED_NAME.sub("True", condition)
    tree = _tree(plain)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _COLUMN_OF_GX:
            yield from (str(part.value) for part in node.args if isinstance(part, ast.Constant))
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)} if tree else set()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Name) and id(node) not in called and node.id != _ROWS_OF_PANDAS:
            yield node.id


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_sound(condition: Any, depth: int) -> bool:
    if not isinstance(condition, Mapping) or depth > _MAX_DEPTH:
        return False
    kind, parts = condition.get("type"), condition.get("conditions")
    if kind in ("and", "or"):
        return isinstance(parts, list) and bool(parts) and all(_is_sound(part, depth + 1) for part in parts)
    if kind == "pass_through":
        text = condition.get("pass_through_filter")
        return isinstance(text, str) and _tree(text) is not None
    if not _is_text(_column_name(condition)):
        return False
    if kind == "nullity":
        return isinstance(condition.get("is_null"), bool)
    return kind == "comparison" and _is_comparison(condition)


def _is_comparison(condition: Mapping[str, Any]) -> bool:
    operator, parameter = condition.get("operator"), condition.get("parameter")
    if operator in ("IN", "NOT_IN"):
        return isinstance(parameter, list)
    return operator in _COMPARISONS and parameter is not None and not isinstance(parameter, list | dict)


def _column_name(condition: Mapping[str, Any]) -> Any:
    column = condition.get("column")
    return column.get("name") if isinstance(column, Mapping) else None


def _columns_in_mapping(condition: Mapping[str, Any]) -> Iterator[str]:
    """Of a condition that is sound."""
    if _is_text(condition.get("pass_through_filter")):
        yield from columns_of(condition["pass_through_filter"])
    if _is_text(_column_name(condition)):
        yield str(_column_name(condition))
    for part in condition.get("conditions") or ():
        yield from columns_of(part)
