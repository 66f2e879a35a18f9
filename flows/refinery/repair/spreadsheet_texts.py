"""Write texts into CSV so that a spreadsheet program keeps them unchanged, and read them back."""

import re

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
_AS_TEXT = re.compile(r'="((?:[^"]|"")*)"', re.DOTALL)
_QUOTED_FORMULA = re.compile(r"'(?=[=+\-@\t\r'])")
_PLAIN_INTEGER = re.compile(r"-?[1-9][0-9]{0,14}|0")  # a float keeps 15 digits
_LONGEST_FORMULA_TEXT = 255  # characters, in Excel
_LONGEST_NUMBER = 40  # characters; spreadsheets read no longer text as a number, date or time
_FLAGS = ("true", "false")


def protected(text: str) -> str:
    """Return the text as a CSV cell that a spreadsheet shows and saves unchanged: `="007"`.

    Spreadsheets read plain cells as numbers, dates, booleans and formulas, by rules that depend on their language. A
    text that is too long for this formula gets an apostrophe in front if it could be read as a formula itself.
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
    """Return the text of a cell in the form that `protected` writes; another cell is returned unchanged."""
    as_text = _AS_TEXT.fullmatch(cell)
    return as_text[1].replace('""', '"') if as_text else _QUOTED_FORMULA.sub("", cell, count=1)


def _may_be_a_value(text: str) -> bool:
    has_digit = any(map(str.isdigit, text))
    return (has_digit and len(text) <= _LONGEST_NUMBER) or text.strip().lower() in _FLAGS
