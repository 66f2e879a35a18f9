"""Numbers, counts and long texts as messages show them."""

from typing import Any

EXACT_FLOAT = 2**53  # from here on not every integer is a float64


def shown(value: Any) -> str:
    """Return a number for people, with six significant digits."""
    plain = as_python(value)
    return f"{plain:.6g}" if isinstance(plain, float) else str(plain)


def counted(number: int, what: str) -> str:
    """Return a number of things: 1 row, 2 rows."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def shortened(text: str, characters: int) -> str:
    """Return the beginning of a text, with an ellipsis where it is longer than this."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def as_python(value: Any) -> Any:
    """Return a NumPy value as a Python value; a whole float as an integer."""
    python = value.item() if hasattr(value, "item") else value
    return int(python) if isinstance(python, float) and python.is_integer() and abs(python) < EXACT_FLOAT else python
