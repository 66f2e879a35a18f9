"""Check the shared strings of a workbook: how many there are, and how much memory their copies in cells need.

The workbook library allocates as many strings as the file claims to have, which can crash the process, and copies a
string into each cell that uses it.
"""

import re
from array import array
from collections.abc import Iterator

from flows.refinery.read.rejections import ExpandsTooMuch

SHARED_TEXTS = "xl/sharedstrings.xml"

_CLAIM = re.compile(rb"<(?:\w+:)?sst\s[^<>]*?\buniqueCount\s*=\s*[\"']\s*(\d{1,30})")
_TEXT = re.compile(rb"<(?:\w+:)?si[\s/>]")
_CELL = re.compile(rb"<(?:\w+:)?c\s[^<>]*?\st\s*=\s*[\"']s[\"'][^<>]*>\s*<(?:\w+:)?v[^<>]*>\s*(\d{1,10})")
_FREE_CLAIM = 1_000_000  # this many cost little memory, and some programs write a wrong count
_MARGIN_BYTES = 4096  # longer than the part of a sheet's XML that refers to a cell's string


class SharedTexts:
    """Measures the shared strings of a workbook, and checks how many it claims to have.

    Attributes:
        longest: the size in bytes of the longest string, with its XML tags.
    """

    def __init__(self) -> None:
        self.longest = 0
        self._claimed = 0
        self._sizes = array("Q")
        self._tail = b""

    def look_at(self, piece: bytes) -> None:
        """Process the next piece of the part with the shared strings."""
        text = self._tail + piece
        end = text.rfind(b">") + 1
        text, self._tail = text[:end], text[end:]
        for claim in _CLAIM.finditer(text):
            self._claimed = max(self._claimed, int(claim[1]))
        at = 0
        for match in _TEXT.finditer(text):
            self._add(match.start() - at)
            self._sizes.append(0)
            at = match.start()
        self._add(len(text) - at)

    def require_honest_claim(self) -> None:
        """Raise ExpandsTooMuch if the workbook claims to have far more strings than it has."""
        if self._claimed > len(self._sizes) + _FREE_CLAIM:
            raise ExpandsTooMuch(
                f"the workbook claims to have {self._claimed} shared strings, but has {len(self._sizes)};"
                " save it again in a spreadsheet program"
            )

    def require_few(self, pieces: Iterator[bytes], max_bytes: int) -> None:
        """Raise ExpandsTooMuch if the cells of a sheet use the shared strings so often that their copies exceed
        `max_bytes`. `pieces` are the sheet's XML."""
        spread, tail = 0, b""
        for piece in pieces:
            text = tail + piece
            end = len(text) - _MARGIN_BYTES if len(piece) > _MARGIN_BYTES else 0
            last = 0
            for cell in _CELL.finditer(text):
                last = cell.end()
                place = int(cell[1])
                spread += self._sizes[place] if place < len(self._sizes) else 0
            tail = text[max(last, end) :]
            if spread > max_bytes:
                raise ExpandsTooMuch(f"the strings in the cells of a sheet exceed {max_bytes} bytes; upload Parquet")

    def _add(self, size: int) -> None:
        if self._sizes:
            self._sizes[-1] += size
            self.longest = max(self.longest, self._sizes[-1])
