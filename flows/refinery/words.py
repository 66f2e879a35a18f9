"""Format numbers, counts and long texts for messages."""

from typing import Any

EXACT_FLOAT = 2**53  # from here on not every integer is a float64


def shown(value: Any) -> str:
    """Format a number for people; a float with at most six significant digits."""
    plain = as_python(value)
    return f"{plain:.6g}" if isinstance(plain, float) else str(plain)


def counted(number: int, what: str) -> str:
    """Return a count with its noun: 1 row, 2 rows."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def shortened(text: str, characters: int) -> str:
    """Return a text, cut to this many characters if it is longer; an ellipsis then ends it."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def as_python(value: Any) -> Any:
    """Convert a NumPy value to a Python value, and a whole float to an integer where floats are exact."""
    python = value.item() if hasattr(value, "item") else value
    return int(python) if isinstance(python, float) and python.is_integer() and abs(python) < EXACT_FLOAT else python
