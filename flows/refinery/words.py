"""Format numbers, counts and long strings for messages."""

from typing import Any

EXACT_FLOAT = 2**53  # from this number on, a float64 cannot represent every integer


def shown(value: Any) -> str:
    """Format a number for a message. A float that is not a whole number gets at most six significant digits."""
    plain = as_python(value)
    return f"{plain:.6g}" if isinstance(plain, float) else str(plain)


def counted(number: int, noun: str) -> str:
    """Return a count with its noun, such as `1 row` or `2 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shortened(text: str, characters: int) -> str:
    """Return `text`, cut to at most this many characters. If it was cut, it ends with an ellipsis."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def as_cell(value: Any) -> str:
    """Format a value as the text of a cell. The values of a list are joined with semicolons, and None becomes ""."""
    if isinstance(value, list):
        return "; ".join(map(as_cell, value))
    return "" if value is None else str(value)


def as_python(value: Any) -> Any:
    """Convert a NumPy value to a Python value, and a float without a fraction to an integer if it is exact."""
    python = value.item() if hasattr(value, "item") else value
    return int(python) if isinstance(python, float) and python.is_integer() and abs(python) < EXACT_FLOAT else python
