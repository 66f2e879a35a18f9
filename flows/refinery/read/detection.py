"""Detect a file's format by its content. Five table formats are allowed; if a file is rejected because it has a
different known format, the message names that format."""

import io
import json
import pickletools
import re
from typing import Literal

from flows.refinery.contract.model import FormatType
from flows.refinery.read.rejections import EmptyFile, FormatMismatch, FormatNotAllowed
from flows.refinery.read.text_source import encoding_of, is_utf8

TableType = Literal["csv", "json", "jsonl", "parquet", "xlsx"]

# Magic numbers from the formats' specifications, for the message. A format that is not listed is rejected as well.
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89HDF", "an HDF5 file"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"ARROW1", "an Arrow file"),
    (b"PARE", "an encrypted Parquet file"),
    (b"\xd0\xcf\x11\xe0", "an old or encrypted Office file; save it as XLSX without a password"),
    (b"BZh", "a bzip2 file; compress with gzip or zstd"),
    (b"\xfd7zXZ", "an xz file; compress with gzip or zstd"),
    (b"\x04\x22\x4d\x18", "an lz4 file; compress with gzip or zstd"),
    (b"\xff\x06\x00\x00sNaPpY", "a snappy file; compress with gzip or zstd"),
    (b"\x1f\x9d", "a file from the program `compress` (.Z); compress with gzip or zstd"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
)
_TAR = slice(257, 262), b"ustar"
# A CSV header whose first name is in brackets. JSON cannot begin like this: in arrays, only these three words may be
# without quotes, and in objects none.
_NAME_IN_BRACKETS = re.compile(
    r"""(\[(?!(true|false|null)\b)[^\W\d][^]\[{}"',;:]*\]|\{[^\W\d][^]\[{}"',;:]*\})[ ]*([,;\t|~^]|\r?\n|\Z)"""
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_CONTROL_BYTES = bytes({*range(0x20), 0x7F} - {*b"\t\n\r\f\x1b"})
_MAX_CONTROL_FRACTION = 0.05
_COMMENT_BEFORE_JSON = re.compile(r"(?:(?://[^\r\n]*|/\*.*?\*/)\s*)++[\[{]", re.DOTALL)
_ALLOWED = "the allowed formats are CSV, JSON, JSON Lines, Parquet and XLSX, plain or compressed with gzip or zstd"


def detect(
    head: bytes, *, declared: FormatType, is_whole: bool, encoding: str | None, delimiter: str | None = None
) -> TableType:
    """Return the format of a file.

    Args:
        head: the file's beginning, decompressed.
        declared: the contract's format.
        is_whole: whether `head` is the whole file.
        encoding: the contract's encoding, if it declares one.
        delimiter: the contract's CSV delimiter, if it declares one; it may be a control character, as in Hive's files.

    Raises:
        EmptyFile, FormatNotAllowed, FormatMismatch
    """
    head = head.rstrip(b"\x1a") if is_whole else head  # DOS programs end text files with Ctrl-Z
    binary = _binary_type(head, declared, is_whole)
    if binary is not None or declared in ("parquet", "xlsx"):
        return _agreed(binary, declared)
    mark, proven = encoding_of(head, encoding)
    if encoding is None and proven in ("utf-8", None):
        _require_text(_without_record_separators(head.replace(delimiter.encode(), b",") if delimiter else head))
    text = head.removeprefix(mark).decode(proven or "latin-1", errors="replace")
    if is_whole and not text.strip("\0 \t\r\n\f\x0b"):
        raise EmptyFile("the file contains only blank lines")
    if declared != "auto":
        return declared
    return text_type(text, is_whole)


def _agreed(found: Literal["parquet", "xlsx"] | None, declared: FormatType) -> TableType:
    if found is None or declared not in ("auto", found):
        name = {"parquet": "a Parquet file", "xlsx": "an XLSX workbook", None: "a file in another format"}[found]
        raise FormatMismatch(f"the contract declares {declared}, but this is {name}")
    return found


def _binary_type(head: bytes, declared: FormatType, is_whole: bool) -> Literal["parquet", "xlsx"] | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK\x03\x04"):
        return "xlsx"  # the reader looks inside and rejects other archives
    if _PICKLE.match(head) or _is_old_pickle(head, is_whole):
        raise FormatNotAllowed(f"this is a Python pickle, which can run code when it is loaded; {_ALLOWED}")
    is_binary = head.startswith(b"%PDF") or _control_fraction(head) > 0 or not is_utf8(head[:-4])
    if is_binary and declared in ("auto", "parquet", "xlsx"):
        for magic, name in _REFUSED:
            if head.startswith(magic):
                raise FormatNotAllowed(f"this is {name}; {_ALLOWED}")
        if head[_TAR[0]] == _TAR[1]:
            raise FormatNotAllowed(f"this is a tar archive; upload each table in it separately; {_ALLOWED}")
    return None


def _is_old_pickle(head: bytes, is_whole: bool) -> bool:
    """Return whether a file begins as a pickle of protocol 0 or 1, which has no magic number. Nothing is executed."""
    if b"p0\n" not in head and b"q\0" not in head:
        return False  # every pickle of a table stores something in the memo
    rest = io.BytesIO(head)
    seen: set[str] = set()
    try:
        seen.update(instruction.name for instruction, _, _ in pickletools.genops(rest))
    except ValueError:  # this is not a pickle, or the head ends inside it
        ends_well = not is_whole
    else:
        ends_well = True
    return ends_well and rest.tell() == len(head) and "MARK" in seen and bool(seen & {"PUT", "BINPUT"})


def _without_record_separators(head: bytes) -> bytes:
    """Remove the record separators from a JSON text sequence (RFC 7464). Return other content unchanged."""
    return head.replace(b"\x1e", b"") if re.match(rb"\x1e\s*[\[{]", head) else head


def _require_text(head: bytes) -> None:
    if _control_fraction(head) > _MAX_CONTROL_FRACTION and not _is_text_with_nul_bytes(head):
        name = next((name for magic, name in _REFUSED if head.startswith(magic)), _what_it_may_be(head))
        raise FormatNotAllowed(f"this is {name}; {_ALLOWED}")
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|svg)", head, re.IGNORECASE):
        raise FormatNotAllowed(f"this is HTML or XML, not a table; {_ALLOWED}")


def _is_text_with_nul_bytes(head: bytes) -> bool:
    """Return whether a file's beginning is text except for NUL bytes after the first line. The reader handles such
    bytes row by row."""
    first_line = head.lstrip(b"\r\n").partition(b"\n")[0]
    others = head.replace(b"\0", b"")
    return (
        len(others) >= len(head) / 2
        and _control_fraction(first_line) == 0
        and _control_fraction(others) <= _MAX_CONTROL_FRACTION
    )


def _what_it_may_be(head: bytes) -> str:
    place = next(place for place, byte in enumerate(head) if byte in _CONTROL_BYTES)
    line, column = head.count(b"\n", 0, place) + 1, place - head.rfind(b"\n", 0, place)
    where = f"line {line}, column {column} has the byte {head[place]:#04x}"
    if not head.strip(b"\0"):
        return f"nothing but NUL bytes ({where}), as after an interrupted copy; upload the file again"
    for start, encoding in ((0, "utf-16-be"), (1, "utf-16-le")):
        if not head[start::2].strip(b"\0") and head[1 - start :: 2].isascii():
            return f"UTF-16 without a byte order mark ({where}); write `encoding: {encoding}` under `format`"
    others = head.replace(head[place : place + 1], b"")
    if head[place] and not _control_fraction(others) and head.count(head[place]) >= head.count(b"\n"):
        written = f'`delimiter: "\\x{head[place]:02x}"` under `format`'
        return f"text with a control character between its fields ({where}); write {written}"
    return f"binary data in an unknown format ({where})"


def _control_fraction(head: bytes) -> float:
    return (len(head) - len(head.translate(None, _CONTROL_BYTES))) / max(1, len(head))


def text_type(text: str, is_whole: bool) -> TableType:
    """Return the format that `text`, a file or its beginning, appears to have: csv, json or jsonl. Raise
    FormatNotAllowed if JSON begins with a comment."""
    beginning = text.lstrip(" \t\r\n\f\x0b\x1e")
    if _COMMENT_BEFORE_JSON.match(beginning):
        raise FormatNotAllowed("this is JSON with comments, which JSON does not have; write it without them")
    if _NAME_IN_BRACKETS.match(beginning):
        return "csv"
    if beginning.startswith("["):
        return "json"
    if not beginning.startswith("{"):
        return "csv"
    lines = beginning if "\n" in beginning else beginning.replace("\r", "\n")
    first_line, newline, _ = lines.partition("\n")
    try:
        _, end = json.JSONDecoder().raw_decode(first_line)
    except (ValueError, RecursionError):
        # One very long line may be a single object, which both readers read in the same way.
        return "json" if newline or is_whole else "jsonl"
    return "json" if first_line[end:].strip() else "jsonl"
