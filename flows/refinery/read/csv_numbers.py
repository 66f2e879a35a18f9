"""Recognize strings in CSV that look like numbers but would lose information as numbers: leading zeros, a plus sign (as
in phone numbers), the form of codes such as 12E3, or digits that a float does not keep."""

import re
from decimal import Decimal

MANY_DIGITS = r"[0-9][0-9.,]{15}|[eE]-[0-9]{3}"  # in numbers that a float might not keep
CODE = r"[+-]?[0-9]+[eE][0-9]+"  # most programs write large numbers with a point or a sign: 1.2e4, 1e+16
MARKED = r"[+-]?0[0-9]+([.,][0-9]*)?|\+[0-9]+"

_BLANKS = " \t"
_MARKED = re.compile(MARKED)
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")


def is_marked_number(text: str) -> bool:
    """Return whether a string is a number with leading zeros, or a whole number with a plus sign."""
    return _MARKED.fullmatch(text.strip(_BLANKS)) is not None


def is_ambiguous_number(text: str) -> bool:
    """Return whether a string is a number such as 1.250, whose separator may be for decimals or for thousands."""
    return _AMBIGUOUS.fullmatch(text.strip()) is not None


def is_kept_by_float(text: str) -> bool:
    """Return whether a float keeps a number: formatted with as many digits as the string has, it is the same number."""
    digits = re.sub(r"[eE].*|[^0-9]", "", text).lstrip("0")
    return is_written_by_float(text) or Decimal(f"{float(text):.{max(0, len(digits) - 1)}e}") == Decimal(text)


def is_written_by_float(text: str) -> bool:
    """Return whether the `repr` of a number's float, its shortest representation, is the same number."""
    return Decimal(repr(float(text))) == Decimal(text)
