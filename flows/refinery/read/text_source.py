"""Convert a text file from any encoding to UTF-8, and its line ends to `\\n` if it has only `\\r`."""

import codecs
import re
from itertools import chain

from flows.refinery.read.byte_source import ByteSource
from flows.refinery.read.rejections import EncodingUnknown, TextUndecodable

SURROGATE = re.compile("[\ud800-\udfff]")
"""Surrogates, which UTF-8 cannot contain. In text that was decoded with surrogate escapes, each is an invalid byte."""
SHIFTS_TO_KANJI = re.compile(rb"\x1b\$([@AB]|[()][A-D])")
"""The escape sequences before non-Latin text in ISO-2022 (Japan, Korea, China). The bytes of that text look like
ASCII."""

# Encodings that are common for tables. A guess among all of Python's encodings would often be an exotic one.
CANDIDATES = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874"),
    *("iso8859_2", "iso8859_15", "koi8_r", "mac_roman", "cp437", "cp850", "cp852", "cp866"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_NAMED_CANDIDATES = 4
_GUESS_BYTES = 16 * 1024
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's mark, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
CONTROLS = re.compile("[\0-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_SHOWN_SIGNS = 120
_MIN_UTF16_SIGNS = 0.5  # the fraction of characters below U+0100 that proves UTF-16 without a byte order mark


class TextSource:
    """A text file as a stream of UTF-8 bytes, without a byte order mark.

    Invalid bytes in a UTF-8 file are passed on, and the reader treats their rows as misfits.

    Attributes:
        encoding: the encoding of the file.

    Raises:
        EncodingUnknown: the file's encoding is neither declared nor certain.
        TextUndecodable: its byte order mark contradicts the contract.
    """

    def __init__(self, source: ByteSource, encoding: str | None) -> None:
        mark, proven = encoding_of(source.head, encoding)
        if proven is None:
            raise _unknown_encoding(source.head)
        self.encoding = proven
        self._source = source
        source.read(len(mark))
        beginning = source.head[len(mark) :]
        self._decoder = None if self.encoding == "utf-8" else codecs.getincrementaldecoder(self.encoding)("strict")
        unit = "\r".encode(self.encoding), "\n".encode(self.encoding)
        self._only_returns = unit[0] in beginning and unit[1] not in beginning
        self._line, self._column = 1, 1  # of the next character

    def read(self, size: int) -> bytes:
        """Return about `size` more bytes of UTF-8, or none at the end of the file. Raise TextUndecodable if the text is
        not in the encoding, or the errors of `ByteSource.read`."""
        content = self._source.read(size)
        if self._decoder is not None:
            content = self._decode(self._decoder, content, is_last=not content) or (
                self.read(size) if content else b""  # only a part of a character so far
            )
        return content.replace(b"\r", b"\n") if self._only_returns else content

    def _decode(self, decoder: codecs.IncrementalDecoder, content: bytes, is_last: bool) -> bytes:
        try:
            text = decoder.decode(content, is_last)
            utf8 = text.encode("utf-8")
        except UnicodeDecodeError as error:
            good = codecs.lookup(self.encoding).decode(error.object[: error.start], "replace")[0]
            self._go_on(good)
            raise self._undecodable() from None
        except UnicodeError:
            raise self._undecodable() from None
        self._go_on(text)
        return utf8

    def _go_on(self, text: str) -> None:
        lines = text.count("\n")
        self._line += lines
        self._column = len(text) - text.rfind("\n") if lines else self._column + len(text)

    def _undecodable(self) -> TextUndecodable:
        return TextUndecodable(
            f"line {self._line}, column {self._column}: the text is not {self.encoding} here;"
            " write the right `encoding` under `format` in the contract"
        )


def is_utf8(content: bytes) -> bool:
    try:
        return content.isascii() or bool(content.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def encoding_of(head: bytes, declared: str | None) -> tuple[bytes, str | None]:
    """Return the byte order mark (b"" if there is none), and the encoding that the mark, the contract or the text
    proves, or None. Raise TextUndecodable if the mark contradicts the contract."""
    for mark, name in _BOMS:
        if head.startswith(mark):
            if declared is not None and not _same_family(declared, name):
                raise TextUndecodable(
                    f"the file begins with the byte order mark of {name}, but the contract declares {declared}; write"
                    f" `encoding: {name}` under `format` in the contract"
                )
            return mark, name
    if declared is not None:
        name = codecs.lookup(declared).name
        return b"", "utf-8" if name in ("utf-8", "utf-8-sig", "ascii") else name
    wide = _utf32_by_proof(head) or _utf16_by_proof(head) if b"\0" in head else None
    return b"", wide or _utf8_by_proof(head)


def _same_family(declared: str, name: str) -> bool:
    declared = codecs.lookup(declared).name
    return declared.startswith(name[:5])


def _utf32_by_proof(head: bytes) -> str | None:
    """Recognize UTF-32 without a byte order mark: every fourth byte is zero, and there are no control characters."""
    for start, name in ((3, "utf-32-le"), (0, "utf-32-be")):
        if not head or head[start::4].strip(b"\0"):
            continue
        try:
            text = codecs.getincrementaldecoder(name)("strict").decode(head)
        except UnicodeDecodeError:
            continue
        return None if CONTROLS.search(text) or not text else name
    return None


def _utf16_by_proof(head: bytes) -> str | None:
    """Recognize UTF-16 without a byte order mark: at least half of the characters have a NUL byte, always in the
    same position, and there are no control characters."""
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        signs = len(head) // 2
        if head[1 - start :: 2].count(0) or not signs or head[start::2].count(0) < _MIN_UTF16_SIGNS * signs:
            continue
        try:
            text = codecs.getincrementaldecoder(name)("strict").decode(head)
        except UnicodeDecodeError:
            return None
        return None if CONTROLS.search(text) else name
    return None


def _utf8_by_proof(head: bytes) -> str | None:
    if SHIFTS_TO_KANJI.search(head):
        return None
    if is_utf8(head):
        return "utf-8"
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(head)
    bad = len(SURROGATE.findall(text))
    good = sum(character >= "\x80" for character in text) - bad if bad else 0
    # A few invalid bytes among valid UTF-8 are damaged rows in a UTF-8 file, not another encoding.
    return "utf-8" if not bad or good > bad else None


def _unknown_encoding(head: bytes) -> EncodingUnknown:
    """Return an error with the likely encodings and, except for ISO-2022, the first line that is not ASCII, decoded
    with each of them."""
    from charset_normalizer import from_bytes  # hardly ever needed, and slow to import

    lines = head.split(b"\n")
    if shift := SHIFTS_TO_KANJI.search(head):
        line = head.count(b"\n", 0, shift.start()) + 1
        return EncodingUnknown(
            f"line {line}: an escape sequence of ISO-2022, so the text is not ASCII;"
            " write the right encoding under `format` in the contract, as in `encoding: iso2022_jp`",
            candidates=("iso2022_jp", "iso2022_kr"),
        )
    place = next(place for place, line in enumerate(lines) if not line.isascii())
    odd = b"\n".join(line for line in lines[place:] if not line.isascii())[:_GUESS_BYTES]
    matches = from_bytes(odd.rpartition(b"\n")[0] or odd, cp_isolation=CANDIDATES)
    # Of the encodings that decode the text in the same way, the most common is listed first, and the others at the end.
    alike = [
        sorted(set(match.could_be_from_charset) & set(CANDIDATES), key=CANDIDATES.index) or [match.encoding]
        for match in matches
    ]
    first = [name for name, *_ in alike]
    names = list(dict.fromkeys([*first, *chain(*alike)]))[:_NAMED_CANDIDATES] or ["cp1252"]
    column = next(position for position, byte in enumerate(lines[place], start=1) if byte >= 0x80)
    return EncodingUnknown(
        f"line {place + 1}, byte {column}: not UTF-8, and there is no byte order mark;"
        f" likely encodings: {', '.join(names)}. Write the right one under `format` in the contract, as in"
        f" `encoding: {names[0]}`; `sluice contract check` shows how each reads the line",
        candidates=tuple(names),
        readings={name: lines[place].decode(name, errors="replace").strip()[:_SHOWN_SIGNS] for name in names},
    )
