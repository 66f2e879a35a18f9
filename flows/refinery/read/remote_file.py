"""Read a remote file with range requests, without a local copy."""

import io
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_BLOCK_BYTES = 4 << 20
_BLOCKS_AHEAD = 3
_BLOCKS_KEPT = 6


@dataclass(frozen=True)
class RemoteFile:
    """A file that is read with range requests. It can be pickled if `read_range` can."""

    size_bytes: int
    folder: Path  # a local folder for decompressed content
    # returns bytes, given their offset and their number; with `keeps_blocks`, several threads call it concurrently
    read_range: Callable[[int, int], bytes]
    keeps_blocks: bool = True  # whether some blocks are kept in memory and the next ones are fetched in advance

    def open(self) -> IO[bytes]:
        """Open the file as a seekable stream."""
        return io.BufferedReader((_Ranges if self.keeps_blocks else _SingleRanges)(self), buffer_size=1 << 20)

    def read_some(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, or fewer if they do not fit into one request or the file ends."""
        return self.read_range(offset, min(size, _BLOCK_BYTES, self.size_bytes - offset))


Source = Path | RemoteFile
"""An uploaded file: a local copy, or a remote file that is read with range requests."""


def size_of(source: Source) -> int:
    return source.size_bytes if isinstance(source, RemoteFile) else source.stat().st_size


def open_source(source: Source) -> IO[bytes]:
    return source.open() if isinstance(source, RemoteFile) else source.open("rb")


class _Ranges(io.RawIOBase):
    """A remote file as a raw stream that keeps a few blocks in memory."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._place, self._last = 0, -1
        self._blocks: dict[int, Future[bytes]] = {}
        self._pool = ThreadPoolExecutor(1 + _BLOCKS_AHEAD, thread_name_prefix="ranges")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._file.size_bytes}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # the base takes any buffer
        if self._place >= self._file.size_bytes:
            return 0
        piece = self._piece(len(buffer))
        buffer[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._blocks.clear()
        super().close()

    def _piece(self, size: int) -> bytes | memoryview:
        """Return at most `size` of the next bytes."""
        number, offset = divmod(self._place, _BLOCK_BYTES)
        return memoryview(self._block(number))[offset : offset + size]

    def _block(self, number: int) -> bytes:
        if number != self._last or number not in self._blocks:
            ahead = _BLOCKS_AHEAD if number == self._last + 1 else 0
            wanted = range(number, min(number + ahead, (self._file.size_bytes - 1) // _BLOCK_BYTES) + 1)
            for one in wanted:
                self._fetch(one)
            for one in [one for one in self._blocks if one not in wanted][: max(0, len(self._blocks) - _BLOCKS_KEPT)]:
                self._blocks.pop(one).cancel()
            self._last = number
        return self._blocks[number].result()

    def _fetch(self, number: int) -> None:
        if number not in self._blocks:
            offset = number * _BLOCK_BYTES
            size = min(_BLOCK_BYTES, self._file.size_bytes - offset)
            self._blocks[number] = self._pool.submit(self._file.read_range, offset, size)


class _SingleRanges(_Ranges):
    """A remote file as a raw stream that keeps nothing in memory."""

    def _piece(self, size: int) -> bytes:
        return self._file.read_some(self._place, size)
