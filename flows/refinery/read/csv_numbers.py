"""Numbers in CSV whose text holds more than their value: zeros or a plus in front, as in postcodes and telephones,
codes such as 12E3, or more digits than a float keeps.

A number that was read has lost them, so every block is looked through; in a few passes of NumPy over its bytes, and
field by field only where such a sign begins a field in question.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.refinery.read.csv_records import plain_structure

MANY_DIGITS = r"[0-9][0-9.,]{15}|[eE]-[0-9]{3}"  # what a float may not keep
CODE = r"[+-]?[0-9]+[eE][0-9]+"  # programs write large numbers with a point or a sign: 1.2e4, 1e+16
MARKED = r"[+-]?0[0-9]+([.,][0-9]*)?|\+[0-9]+"

_BLANKS = " \t"
_MARKED = re.compile(MARKED)
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
_ZERO, _PLUS = b"0+"
_LONG = {".": re.compile(rb"[0-9][0-9.]{15}"), ",": re.compile(rb"[0-9][0-9,]{15}")}
_CODE = re.compile(rf"(?<![0-9A-Za-z.]){CODE}(?![0-9A-Za-z.])".encode())
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
_PIECE_BYTES = 1 << 18  # fits a processor's cache, with what is computed from it
_OVERLAP_BYTES = 64  # more than a number that is looked for, and what is around it
_ALL_TRUE = np.uint32(0x01010101)


def is_marked_number(text: str) -> bool:
    """Return whether a text is a number with zeros in front, or a whole one with a plus."""
    return _MARKED.fullmatch(text.strip(_BLANKS)) is not None


def is_ambiguous_number(text: str) -> bool:
    """Return whether a text is a number whose one mark may be for decimals or for thousands, as in 1.250."""
    return _AMBIGUOUS.fullmatch(text.strip()) is not None


def is_kept_by_float(text: str) -> bool:
    """Return whether a number is the same again when its float is written with as many digits."""
    digits = re.sub(r"[eE].*|[^0-9]", "", text).lstrip("0")
    return is_written_by_float(text) or Decimal(f"{float(text):.{max(0, len(digits) - 1)}e}") == Decimal(text)


def is_written_by_float(text: str) -> bool:
    """Return whether a float of a number is written as the same number, with the fewest digits that name it."""
    return Decimal(repr(float(text))) == Decimal(text)


def may_differ_as_floats(block: bytes, decimal: str) -> bool:
    """Return whether some number of a block may be another one as a float: it has more digits or is nearer to 0 than
    every float keeps, or is a code such as 12E3."""
    starts = range(0, len(block), _PIECE_BYTES)
    pieces = (block[max(0, start - _OVERLAP_BYTES) : start + _PIECE_BYTES + _OVERLAP_BYTES] for start in starts)
    return any(_piece_may_differ(piece, decimal) for piece in pieces)


def _piece_may_differ(block: bytes, decimal: str) -> bool:
    content = np.frombuffer(block, dtype=np.uint8)
    is_digit = (content - _ZERO) < 10
    is_e = (content | 0x20) == ord("e")
    return (
        _has_tiny_number(content, is_digit, is_e)
        or _has_long_number(block, is_digit | (content == ord(decimal)), decimal)
        or _has_code(block, is_digit, is_e)
    )


def _has_tiny_number(content: Bytes, is_digit: Flags, is_e: Flags) -> bool:
    """Return whether an exponent has three digits: e-123."""
    is_sign = is_e[:-4] & (content[1:-3] == ord("-"))
    return bool(is_sign.any() and (is_sign & is_digit[2:-2] & is_digit[3:-1] & is_digit[4:]).any())


def _has_long_number(block: bytes, in_number: Flags, decimal: str) -> bool:
    # A run of 16 covers three times 4 bytes that are one machine word.
    words = in_number[: len(in_number) // 4 * 4].view(np.uint32) == _ALL_TRUE
    places = np.flatnonzero(words[2:] & words[1:-1] & words[:-2]) * 4
    around = (block[max(0, place - 4) : place + 20] for place in places.tolist())
    return any(_LONG[decimal].search(piece) for piece in around)


def _has_code(block: bytes, is_digit: Flags, is_e: Flags) -> bool:
    is_between = is_digit[:-2] & is_digit[2:] & is_e[1:-1]
    if not is_between.any():  # much faster than looking for places
        return False
    places = np.flatnonzero(is_between) + 1
    return any(_CODE.search(block, max(0, place - 24), place + 24) for place in places.tolist())


def columns_with_marked_numbers(
    block: bytes, delimiter: str, quote: str, places: Collection[int], columns: int, rows: int
) -> set[int]:
    """In which columns of a block some field is a whole number with zeros or a plus in front.

    Args:
        block: whole records of equally many fields, whose quotes are all regular.
        places: of the columns in question, from 0; all of their fields are numbers or missing.
        columns, rows: how many there are; a block that turns out to have others is not looked at.
    """
    found: set[int] = set()
    beginnings = _beginnings(np.frombuffer(block, dtype=np.uint8), delimiter, quote)
    structure = plain_structure(block, delimiter, quote) if len(beginnings) else None
    if structure is None or len(structure.newlines) != rows:
        return found
    is_end = structure.delimiters
    is_end[structure.newlines] = True
    ends = np.flatnonzero(is_end)
    fields = np.searchsorted(ends, beginnings)
    is_in_question = np.zeros(columns, dtype=bool)
    is_in_question[list(places)] = True
    fields = fields[is_in_question[fields % columns]]
    around = quote + _BLANKS + "\r"
    for field in fields.tolist():
        start = int(ends[field - 1]) + 1 if field else 0
        text = block[start : int(ends[field])].decode("utf-8", errors="replace")
        if field % columns not in found and is_marked_number(text.strip(around)):
            found.add(field % columns)
            if len(found) == len(places):
                break
    return found


def _beginnings(content: Bytes, delimiter: str, quote: str) -> Any:
    """Return where a zero or a plus comes before a digit, after nothing but a minus or blanks in its field."""
    edges = _table_of(f"{delimiter}\n{quote}")
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(content), _PIECE_BYTES):
        first = max(0, start - 2)  # what is before the piece decides, too
        places = _beginnings_in(content[first : start + _PIECE_BYTES + 1], edges) + first
        found.append(places[places >= start])
    return np.concatenate(found)


def _beginnings_in(content: Bytes, edges: Flags) -> Any:
    is_digit = (content - _ZERO) < 10  # bytes below "0" wrap around
    begins = ((content[:-1] == _ZERO) | (content[:-1] == _PLUS)) & is_digit[1:]
    begins[1:] &= ~is_digit[:-2]
    begins[2:] &= ~((content[1:-2] == ord("-")) & is_digit[:-3])  # as in dates, of which there may be many
    places = np.flatnonzero(begins)
    before = content[np.maximum(places - 1, 0)]
    at_edge = edges[before] | (places == 0)
    later = places[_table_of(_BLANKS + "-")[before] & ~at_edge]
    reaches_edge = (edges | _table_of(_BLANKS))[content[np.maximum(later - 2, 0)]] | (later < 2)
    return np.concatenate([places[at_edge], later[reaches_edge]])


def _table_of(characters: str) -> Flags:
    """For each byte whether it is one of some ASCII characters."""
    table = np.zeros(256, dtype=bool)
    table[list(characters.encode())] = True
    return table
