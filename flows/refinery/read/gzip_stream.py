"""The content of a gzip file: of all its members, without the zero bytes that some programs write behind them."""

from __future__ import annotations

import zlib
from typing import Any

_READ_BYTES = 1 << 15
_GZIP = 16 + zlib.MAX_WBITS


class GzipStream:
    """Unpacks a gzip file piece by piece.

    Args:
        raw: the packed file, at its beginning.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._packed = b""
        self._member = zlib.decompressobj(_GZIP)
        self._is_between = False  # the last member has ended, and no next one has begun

    def read(self, size: int) -> bytes:
        """Return the next bytes, `size` at most; none only at the end.

        Raises:
            EOFError: the rest is damaged or missing; each byte before it was returned.
        """
        while True:
            packed = self._packed or self._raw.read(_READ_BYTES)
            if self._is_between:
                if not packed:
                    return b""
                self._packed = packed.lstrip(b"\0")
                if self._packed:
                    self._member, self._is_between = zlib.decompressobj(_GZIP), False
                continue
            before = self._member.copy()
            try:
                content = self._member.decompress(packed, size)
            except zlib.error as error:
                content, self._packed = _good_part(before, packed[:_READ_BYTES], size), b""
                if not content:
                    raise EOFError from error
                return content
            if self._member.eof:
                self._packed, self._is_between = self._member.unused_data, True
            else:
                self._packed = self._member.unconsumed_tail
            if content:
                return content
            if not packed:
                raise EOFError


def _good_part(member: Any, packed: bytes, size: int) -> bytes:
    """Return what can be unpacked before the damage."""
    content = b""
    try:
        for place in range(len(packed)):
            content += member.decompress(packed[place : place + 1], size)
    except zlib.error:
        pass
    return content
