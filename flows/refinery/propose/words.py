"""Numbers and counts as comments show them."""

from typing import Any

EXACT_FLOAT = 2.0**53


def shown(value: Any) -> str:
    """Return a number for people, with six significant digits."""
    plain = as_python(value)
    return f"{plain:.6g}" if isinstance(plain, float) else str(plain)


def counted(number: int, what: str) -> str:
    """Return a number of things: 1 row, 2 rows."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def as_python(value: Any) -> Any:
    """Return a NumPy value as a Python value; a whole float as an integer."""
    python = value.item() if hasattr(value, "item") else value
    return int(python) if isinstance(python, float) and python.is_integer() and abs(python) < EXACT_FLOAT else python
