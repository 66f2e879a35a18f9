"""Write strings into CSV in a form that spreadsheet programs do not change, and read them back."""

import re

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
_AS_TEXT = re.compile(r'="((?:[^"]|"")*)"', re.DOTALL)
_QUOTED_FORMULA = re.compile(r"'(?=[=+\-@\t\r'])")
_PLAIN_INTEGER = re.compile(r"-?[1-9][0-9]{0,14}|0")  # a float keeps 15 digits
_LONGEST_FORMULA_TEXT = 255  # characters, in Excel
_LONGEST_NUMBER = 40  # characters; spreadsheets do not read longer text as a number, date or time
_FLAGS = ("true", "false")


def protected(text: str) -> str:
    """Return the content of a CSV cell that a spreadsheet program shows and saves as `text`, such as `="007"` for 007.

    Spreadsheet programs read plain cells as numbers, dates, booleans and formulas, by rules that depend on their
    language. Text that is too long for `="..."`, or has a carriage return, gets an apostrophe in front if it begins
    like a formula or with an apostrophe, and is not changed otherwise.
    """
    if _PLAIN_INTEGER.fullmatch(text):
        return text
    starts_like_formula = text.startswith((*_FORMULA_SIGNS, "'"))
    if not starts_like_formula and not _may_be_a_value(text):
        return text
    quoted = text.replace('"', '""')
    if len(quoted) <= _LONGEST_FORMULA_TEXT and "\r" not in text:
        return f'="{quoted}"'
    return f"'{text}" if starts_like_formula else text


def unprotected(cell: str) -> str:
    """Return the text of a cell that is in the form that `protected` writes. Return any other cell unchanged."""
    as_text = _AS_TEXT.fullmatch(cell)
    return as_text[1].replace('""', '"') if as_text else _QUOTED_FORMULA.sub("", cell, count=1)


def _may_be_a_value(text: str) -> bool:
    has_digit = any(map(str.isdigit, text))
    return (has_digit and len(text) <= _LONGEST_NUMBER) or text.strip().lower() in _FLAGS
