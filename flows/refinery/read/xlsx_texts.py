"""Check the shared texts of a workbook: how many there are, and how much memory their copies in cells need.

The workbook library allocates as many as the file claims, which can crash the process, and copies a text into each
cell that uses it.
"""

import re
from array import array
from collections.abc import Iterator

from flows.refinery.read.rejections import ExpandsTooMuch

SHARED_TEXTS = "xl/sharedstrings.xml"

_CLAIM = re.compile(rb"<(?:\w+:)?sst\s[^<>]*?\buniqueCount\s*=\s*[\"']\s*(\d{1,30})")
_TEXT = re.compile(rb"<(?:\w+:)?si[\s/>]")
_CELL = re.compile(rb"<(?:\w+:)?c\s[^<>]*?\st\s*=\s*[\"']s[\"'][^<>]*>\s*<(?:\w+:)?v[^<>]*>\s*(\d{1,10})")
_FREE_CLAIM = 1_000_000  # costs little, and some writers count wrongly
_MARGIN_BYTES = 4096  # longer than the part of a sheet's XML that gives a cell's text


class SharedTexts:
    """The shared texts that a workbook claims to have, and those that it has.

    Attributes:
        longest: bytes of the longest text, with its XML tags.
    """

    def __init__(self) -> None:
        self.longest = 0
        self._claimed = 0
        self._sizes = array("Q")
        self._tail = b""

    def look_at(self, piece: bytes) -> None:
        """Process the next piece of the part with the shared texts."""
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
        """Reject a workbook that claims far more texts than it has. Raises ExpandsTooMuch."""
        if self._claimed > len(self._sizes) + _FREE_CLAIM:
            raise ExpandsTooMuch(
                f"the workbook claims to have {self._claimed} shared texts, and has {len(self._sizes)};"
                " save it again in a spreadsheet program"
            )

    def require_few(self, pieces: Iterator[bytes], max_bytes: int) -> None:
        """Reject a sheet whose cells use the shared texts so often that their copies exceed `max_bytes`. Raises
        ExpandsTooMuch."""
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
                raise ExpandsTooMuch(f"the texts of a sheet spread out to more than {max_bytes} bytes; upload Parquet")

    def _add(self, size: int) -> None:
        if self._sizes:
            self._sizes[-1] += size
            self.longest = max(self.longest, self._sizes[-1])
