"""The bytes of a text file as UTF-8, whatever encoding it came in, with `\\n` line ends where it had only `\\r`."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from flows.refinery.read.byte_source import ByteSource
from flows.refinery.read.rejections import TextUndecodable

SURROGATE = re.compile("[\ud800-\udfff]")
"""What no UTF-8 text has. Where text was decoded with surrogate escapes, one is a byte that is no UTF-8."""

# Encodings that tables are met in; a guess among all that Python knows would often be an exotic one.
_GUESSED = [
    *("cp1252", "cp1250", "cp1251", "iso8859_15", "koi8_r", "mac_roman"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_USUAL = "cp1252"  # of several that fit equally well
_GUESS_BYTES = 16 * 1024
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class TextSource:
    """The same text as UTF-8 bytes without a byte order mark.

    Bytes that are no UTF-8 in a UTF-8 file are passed on: the reader takes their rows for misfits.

    Attributes:
        encoding: the encoding that the file is in.
    """

    def __init__(self, source: ByteSource, encoding: str | None) -> None:
        mark, self.encoding = _encoding_of(source.head, encoding)
        self._source = source
        source.read(len(mark))
        beginning = source.head[len(mark) :]
        self._decoder = None if self.encoding == "utf-8" else codecs.getincrementaldecoder(self.encoding)("strict")
        unit = "\r".encode(self.encoding), "\n".encode(self.encoding)
        self._only_returns = unit[0] in beginning and unit[1] not in beginning
        self._line, self._column = 1, 1  # of the next character

    def read(self, size: int) -> bytes:
        """The next UTF-8 bytes, about `size` of them; none only at the end.

        Raises:
            TextUndecodable
        """
        content = self._source.read(size)
        if self._decoder is not None:
            content = self._decode(self._decoder, content, is_last=not content) or (
                self.read(size) if content else b""  # so far only a part of a character
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
    """Whether bytes can be decoded."""
    try:
        return content.isascii() or bool(content.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def _encoding_of(head: bytes, declared: str | None) -> tuple[bytes, str]:
    """The byte order mark, if any, and the encoding."""
    given = None if declared is None else codecs.lookup(declared).name
    for mark, name in _BOMS:
        if head.startswith(mark) and (given is None or given.startswith(name[:5])):
            return mark, name
    if given is None:
        return b"", _guess(head)
    return b"", "utf-8" if given in ("utf-8", "utf-8-sig", "ascii") else given


def _guess(head: bytes) -> str:
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(head)
    bad = sum("\udc80" <= character <= "\udcff" for character in text) if not text.isascii() else 0
    good = sum(character >= "\x80" for character in text) - bad if bad else 0
    # A few broken bytes among proper UTF-8 are broken rows of a UTF-8 file, not another encoding.
    if not bad or good > bad:
        return "utf-8"
    matches = from_bytes(head[:_GUESS_BYTES], cp_isolation=_GUESSED)
    best = matches.best()
    if best is None or any(match.encoding == _USUAL and match.chaos <= best.chaos for match in matches):
        return _USUAL
    return _USUAL if _USUAL in best.could_be_from_charset else best.encoding
