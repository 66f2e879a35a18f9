"""Limit how deeply a JSON value may be nested. Python's own limits differ between the functions that read and write
JSON."""

from typing import Any

MAX_LEVELS = 200


def is_nested_too_deep(value: Any, text: str) -> bool:
    """Return whether a value has objects or arrays nested on more than `MAX_LEVELS` levels.

    Args:
        text: the value as JSON. The value is searched only if this text has more than `MAX_LEVELS` opening brackets.
    """
    if text.count("[") + text.count("{") <= MAX_LEVELS:
        return False
    level, depth = [value], 0
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return depth > MAX_LEVELS
