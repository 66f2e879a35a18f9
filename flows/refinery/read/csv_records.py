"""Find where CSV records end in a block of text, and split blocks that are not plain into their records.

A few NumPy passes recognize plain blocks, which Arrow's parser can read as a whole. Python's csv module splits all
other blocks record by record. It reads quotes in the same way as Arrow, and shows where each record begins.
"""

import csv
import functools
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flows.refinery.read.text_source import SHIFTS_TO_KANJI, SURROGATE

TEXT_AFTER_QUOTE = "text_after_quote"
_NEWLINE = 10
_RETURN = 13
_SEARCHED_BYTES = 1 << 18  # searched at a time, so that they stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Record:
    """A record's fields, or why it cannot be read, and its lines."""

    fields: list[str] | None  # its fields; None if it cannot be read
    fault: str | None  # why it cannot be read, in snake_case
    first_line: int  # the lines of the block that it spans, from 0, end exclusive
    end_line: int
    is_open: bool  # whether the block ends inside a quoted field of the record


def split_records(lines: Sequence[str], delimiter: str, quote: str, escape: str | None = None) -> Iterator[Record]:
    """Split lines into records, and yield those that are not blank.

    Args:
        lines: the lines with their line ends; bytes that are not UTF-8 are surrogate escapes.
        escape: the escape character. A quote, delimiter or escape character after it is part of the field.
    """
    exhausted = False
    a_field, a_record = _patterns(delimiter, quote, escape)

    def feed() -> Iterator[str]:
        nonlocal exhausted
        yield from lines
        exhausted = True  # the last record is not closed: csv asked for another line

    blank = " \t".replace(delimiter, "") + "\r\n"
    # csv supports only delimiters of one character. With a longer delimiter, it only finds the ends of the records; the
    # fields are split below.
    reader = csv.reader(feed(), delimiter=delimiter[-1], quotechar=quote, escapechar=escape)
    cuts_fields = len(delimiter) > 1
    consumed = 0
    while consumed < len(lines):
        fields: list[str] | None
        try:
            fields, fault = next(reader), None
        except csv.Error:
            fields, fault = None, "stray_carriage_return"
        except StopIteration:
            return
        first, consumed = consumed, reader.line_num
        raw = lines[first] if consumed == first + 1 else "".join(lines[first:consumed])
        if not raw.strip(blank):
            continue
        if "\0" in raw:
            fault = "nul_byte"
        elif SURROGATE.search(raw) or ("\x1b" in raw and SHIFTS_TO_KANJI.search(raw.encode())):
            fault = "undecodable_text"
        elif quote in raw and not exhausted and not a_record.fullmatch(raw):
            fault = TEXT_AFTER_QUOTE
        elif (cuts_fields or (escape and escape in raw)) and not fault:
            fields = [_unescaped(match, delimiter, quote, escape) for match in a_field.finditer(raw)]
        yield Record(None if fault else fields, fault, first, consumed, exhausted)


@functools.cache
def _patterns(delimiter: str, quote: str, escape: str | None) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return two patterns: a regular field with the delimiter before it, and a record of regular fields."""
    comma, mark, back = re.escape(delimiter), re.escape(quote), re.escape(escape or "")
    escaped = f"|{back}." if escape else ""
    blanks = " \t".replace(delimiter, "")
    inside = f"(?:[^{mark}{back}]|{mark}{mark}{escaped})*+"
    before = rf"(?!{comma})" if len(delimiter) > 1 else ""
    outside = rf"(?:{before}[^{'' if before else comma}\r\n{back}]{escaped})*+"
    field = f"(?:{mark}(?P<quoted>{inside}){mark}[{blanks}]*|(?!{mark})(?P<plain>{outside}))"
    unnamed = field.replace("?P<quoted>", "?:").replace("?P<plain>", "?:")
    record = rf"{unnamed}(?:{comma}{unnamed})*+\r?\n?"
    return re.compile(rf"(?:^|{comma}){field}", re.DOTALL), re.compile(record, re.DOTALL)


def _unescaped(match: re.Match[str], delimiter: str, quote: str, escape: str | None) -> str:
    if escape is None:
        return match["plain"] if match["quoted"] is None else match["quoted"].replace(2 * quote, quote)
    comma, mark, back = re.escape(delimiter), re.escape(quote), re.escape(escape)
    after_escape = f"{back}([{mark}{back}{comma}])"
    if match["quoted"] is None:
        return re.sub(after_escape, r"\1", match["plain"])
    return re.sub(f"{mark}({mark})|{after_escape}", lambda found: found[found.lastindex or 0], match["quoted"])


def misplaced_quote(text: str, delimiter: str, quote: str, escape: str | None) -> tuple[int, int]:
    """Return the line (from 0) and column (from 1) at which text follows a closing quote."""
    a_field, _ = _patterns(delimiter, quote, escape)
    later_field = re.compile(a_field.pattern.replace("^|", "", 1), re.DOTALL)
    place = 0
    match = a_field.match(text)
    while match and text.startswith(delimiter, match.end()):
        place = match.end()
        match = later_field.match(text, place)
    place = match.end() if match else place
    return text.count("\n", 0, place), place - text.rfind("\n", 0, place)


def opening_quote(text: str, delimiter: str, quote: str) -> tuple[int, int]:
    """Return the line (from 0) and column (from 1) of the quote in `text` that is never closed."""
    opened, is_open = 0, False
    for place in (match.start() for match in re.finditer(re.escape(quote), text)):
        doubled = not is_open and text.endswith(quote, 0, place) and place - 1 > opened
        if is_open or doubled:
            is_open = not is_open
        elif not place or text.endswith((delimiter, "\n"), 0, place):  # elsewhere a quote is an ordinary character
            opened, is_open = place, True
    return text.count("\n", 0, opened), opened - text.rfind("\n", 0, opened)


@dataclass(frozen=True, slots=True)
class Plain:
    """The structure of a block whose quotes are all regular."""

    newlines: npt.NDArray[np.int64]  # positions of the line ends that end a record
    all_newlines: npt.NDArray[np.int64]  # including those within fields


def plain_structure(text: bytes | bytearray, end: int, delimiter: str, quote: str) -> Plain | None:
    """Return the structure of the first `end` bytes of `text`, which must begin with a record. Return None if they must
    be read record by record."""
    content = np.frombuffer(text, dtype=np.uint8, count=end)
    newlines = _places_of(_NEWLINE, content)
    if text.find(quote.encode(), 0, end) < 0:
        return Plain(newlines, newlines)
    quotes = _places_of(ord(quote), content)
    if not _quotes_are_regular(content, quotes, delimiter, quote):
        return None
    return Plain(newlines[_is_outside(newlines, quotes)], newlines)


def _places_of(sign: int, content: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the positions of a rare byte. Matches are packed into bits and searched eight at a time, which is faster
    than byte by byte."""
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(content), _SEARCHED_BYTES):
        bits = np.packbits(content[start : start + _SEARCHED_BYTES] == sign)
        some = np.flatnonzero(bits != 0)
        place = np.flatnonzero(np.unpackbits(bits[some]).view(bool))
        found.append(some[place >> 3] * 8 + (place & 7) + start)
    return np.concatenate(found)


def _is_outside(places: npt.NDArray[np.int64], quotes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which positions are outside of quoted fields, because an even number of quotes precedes them."""
    outside: npt.NDArray[np.bool_] = np.searchsorted(quotes, places) % 2 == 0
    return outside


def _quotes_are_regular(
    content: npt.NDArray[np.uint8], quotes: npt.NDArray[np.int64], delimiter: str, quote: str
) -> bool:
    """Return whether every opening quote begins a field and every closing one ends it (or is one of a doubled pair).
    The last field may be open and continue after the block."""
    opening, closing = quotes[0::2], quotes[1::2]
    before = content[np.maximum(opening - 1, 0)]
    begins = (before == ord(delimiter)) | (before == _NEWLINE) | (before == ord(quote)) | (opening == 0)
    closing = closing[closing < len(content) - 1]
    after = content[closing + 1]
    ends = (after == ord(delimiter)) | (after == _NEWLINE) | (after == _RETURN) | (after == ord(quote))
    return bool(begins.all() and ends.all())


def lines_of(text: str) -> list[str]:
    return list(io.StringIO(text, newline="\n"))  # with their line ends


def has_line(content: memoryview, newlines: npt.NDArray[np.int64], lines: Sequence[bytes]) -> bool:
    """Return whether one of the records, which end at `newlines`, equals one of these lines. This is several times
    faster than searching the bytes, because few records have the right length, and fewer the right beginning."""
    starts = np.concatenate([[0], newlines[:-1] + 1])
    sizes = newlines + 1 - starts
    signs = np.frombuffer(content, dtype=np.uint8)
    return any(_begins_with(signs, starts[sizes == len(line)], line) for line in lines)


def _begins_with(signs: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], line: bytes) -> bool:
    for place, sign in enumerate(line):
        if not len(starts):
            break
        starts = starts[signs[starts + place] == sign]
    return bool(len(starts))


def without_trailing(
    content: memoryview, newlines: npt.NDArray[np.int64], delimiter: str, quote: str, count: int
) -> bytes | None:
    """Return a block without the last `count` delimiters of each record; None if a record does not end with them."""
    signs = np.frombuffer(content, dtype=np.uint8)
    ends = newlines - (signs[np.maximum(newlines - 1, 0)] == _RETURN)
    places = np.concatenate([ends - place for place in range(1, count + 1)])
    quotes = np.flatnonzero(signs == ord(quote))
    if places.min() < 0 or not (signs[places] == ord(delimiter)).all() or not _is_outside(places, quotes).all():
        return None
    kept = np.ones(len(signs), dtype=bool)
    kept[places] = False
    return signs[kept].tobytes()


def is_clean_text(text: bytes | bytearray, end: int) -> bool:
    """Return whether the first `end` bytes have no NUL bytes, no ISO-2022 escape sequences, and no carriage returns
    except in line ends."""
    if text.find(b"\0", 0, end) >= 0 or (text.find(b"\x1b", 0, end) >= 0 and SHIFTS_TO_KANJI.search(text, 0, end)):
        return False
    return text.find(b"\r", 0, end) < 0 or text.count(b"\r", 0, end) == text.count(b"\r\n", 0, end)


def holds_utf8(texts: pa.Array) -> bool:
    """Return whether all strings in an unvalidated `large_string` array are UTF-8. ASCII is recognized quickly."""
    content = texts.buffers()[2]
    if content is None or np.frombuffer(content, dtype=np.int8).min(initial=0) >= 0:
        return True
    try:
        texts.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def written_again(rows: list[list[str]], delimiter: str, quote: str) -> bytes:
    """Format rows as plain CSV in UTF-8. Every field is quoted, so that a row with one empty field is not an empty
    line."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, quotechar=quote, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return buffer.getvalue().encode("utf-8")
