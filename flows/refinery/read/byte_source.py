"""Read and decompress a file's bytes, with limits that apply before much memory or time is spent."""

import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal

import pyarrow as pa

from flows.refinery.read.partition import Limits
from flows.refinery.read.rejections import CompressionBroken, EmptyFile, ExpandsTooMuch, FileTooLarge
from flows.refinery.read.remote_file import RemoteFile, Source, open_source, size_of

HEAD_BYTES = 64 * 1024
_COPY_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16  # decompressed at a time: in a damaged piece, zstd also loses the data before the damage
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a zstd frame without data, which pzstd writes first
_MAX_SKIPPABLE = 16

Compression = Literal["gzip", "zstd"]
_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class ByteSource:
    """A file's bytes after decompression, read once from beginning to end.

    Compression is detected by content, never by name.

    Attributes:
        file: the file as it is stored, compressed or not.
        compression: how it is compressed; None if it is not.
        head: the first `HEAD_BYTES` bytes, or all if there are fewer. `read` returns them, too.
    """

    def __init__(self, file: Source, raw: Any, limits: Limits) -> None:
        self.file = file
        self.compression = _compression_of(raw)
        raw.seek(0)
        self._limits = limits
        self._raw = raw
        self._stream = _unpacked(raw, self.compression)
        self._expanded_bytes = 0
        self._ahead = b""
        self.head = self.read(HEAD_BYTES)
        self._ahead = self.head
        if self.compression and _magic_of(self.head):
            raise CompressionBroken("the file is compressed twice; compress it once")

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or fewer at the end. Raise CompressionBroken, ExpandsTooMuch or FileTooLarge if
        the file is damaged or exceeds a limit."""
        if self._ahead:
            taken, self._ahead = self._ahead[:size], self._ahead[size:]
            return taken if len(taken) == size else taken + self.read(size - len(taken))
        pieces = []
        while size > 0 and (piece := self._read_piece(min(size, _PIECE_BYTES) if self.compression else size)):
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @contextmanager
    def as_file(self, max_bytes: int) -> Iterator[IO[bytes]]:
        """Yield the bytes as a seekable file: the original file, or a temporary file with the decompressed bytes.

        Args:
            max_bytes: the maximum size of the file that is yielded.

        Raises:
            FileTooLarge: the file is larger than `max_bytes`.
            CompressionBroken, ExpandsTooMuch: as in `read`.
        """
        if not self.compression:
            if size_of(self.file) > max_bytes:
                raise FileTooLarge(f"the file is larger than {max_bytes} bytes")
            with open_source(self.file) as file:
                yield file
            return
        with tempfile.TemporaryFile(
            dir=self.file.folder if isinstance(self.file, RemoteFile) else self.file.parent
        ) as file:
            copied = 0
            while piece := self.read(_COPY_BYTES):
                copied += len(piece)
                if copied > max_bytes:
                    raise FileTooLarge(f"the file expands to more than {max_bytes} bytes")
                file.write(piece)
            file.seek(0)
            yield file

    def _read_piece(self, size: int) -> bytes:
        try:
            # read() would drop the data before the damage.
            read = self._stream.read1 if self.compression == "gzip" else self._stream.read
            piece: bytes = read(size)
        except (OSError, pa.ArrowException, EOFError, zlib.error) as error:
            if not self.compression:
                raise
            raise CompressionBroken(
                f"the {self.compression} compression is damaged or cut short after {self._expanded_bytes} bytes of data"
            ) from error
        self._expanded_bytes += len(piece)
        if self.compression:
            self._check_expansion()
        return piece

    def _check_expansion(self) -> None:
        if self._expanded_bytes > self._limits.max_expanded_bytes:
            raise FileTooLarge(f"the file expands to more than {self._limits.max_expanded_bytes} bytes")
        ratio = self._expanded_bytes / max(1, self._raw.tell())
        if self._expanded_bytes > self._limits.expansion_grace_bytes and ratio > self._limits.max_expansion_ratio:
            raise ExpandsTooMuch(
                f"the file expands to {ratio:.0f} times its size; at most {self._limits.max_expansion_ratio:.0f} times"
                " is allowed"
            )


@contextmanager
def open_bytes(file: Source, limits: Limits) -> Iterator[ByteSource]:
    """Open a file to read it once. Raise EmptyFile, FileTooLarge, CompressionBroken or ExpandsTooMuch if its size or
    its beginning shows that it cannot be read."""
    size = size_of(file)
    if size == 0:
        raise EmptyFile("the file is empty (0 bytes)")
    if size > limits.max_file_bytes:
        raise FileTooLarge(f"the file has {size} bytes; at most {limits.max_file_bytes} are read")
    with file.open() if isinstance(file, RemoteFile) else pa.OSFile(str(file), "rb") as raw:
        source = ByteSource(file, raw, limits)
        if not source.head:
            raise EmptyFile("the file is empty once it is decompressed")
        yield source


def _compression_of(raw: Any) -> Compression | None:
    for _ in range(_MAX_SKIPPABLE):
        beginning = raw.read(8)
        if not _SKIPPABLE.match(beginning):
            break
        raw.seek(raw.tell() + int.from_bytes(beginning[4:], "little"))
    return _magic_of(beginning)


def _unpacked(raw: Any, compression: Compression | None) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw)  # reads all members, and skips zeros after them
    return pa.CompressedInputStream(raw, compression) if compression else raw


def _magic_of(beginning: bytes) -> Compression | None:
    return next((name for magic, name in _MAGIC.items() if beginning.startswith(magic)), None)
