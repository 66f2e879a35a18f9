"""Cases with compressed files and archives, such as ZIP files. Sluice reads the data inside, or rejects the file."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from contextlib import suppress
from typing import Any

import pyarrow as pa

from tests.cases.case import Case

_CSV = b"id,v\n1,a\n2,b\n3,c\n4,d\n"
_VALUES: dict[str, list[Any]] = {"id": [1, 2, 3, 4], "v": ["a", "b", "c", "d"]}
_LONG = b"id,v\n" + b"".join(b"%d,%x\n" % (number, number**7) for number in range(50_000))


def _zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _skippable(content: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def _tar(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("data.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _zip(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return packed.getvalue()


def _good_bytes(file: Any) -> int:
    """Return how many bytes can be decompressed from a file that was cut short."""
    count = 0
    with file, suppress(EOFError, OSError):
        while file.read(1):
            count += 1
    return count


_CUT_GZIP = gzip.compress(_LONG)[:20_000]
_CUT_ZSTD = _zstd(_LONG)[:150_000]
_GOOD_GZIP = _good_bytes(gzip.GzipFile(fileobj=io.BytesIO(_CUT_GZIP)))
_GOOD_ZSTD = _good_bytes(pa.CompressedInputStream(pa.BufferReader(_CUT_ZSTD), "zstd"))

_REFUSED = {
    "lz4": b"\x04\x22\x4d\x18\x64\x40\xa7\x0b\x00\x00\x80a,b\n1,2\n3,4\n\x00\x00\x00\x00",
    "snappy": b"\xff\x06\x00\x00sNaPpY\x01\x0c\x00\x00\x00\x00\x00\x00a,b\n1,2\n",
    ".Z": b"\x1f\x9d\x90a\x58\x88\xa1\xb4\xb0\x00\xff\x10",
    "empty ZIP": b"PK\x05\x06" + bytes(18),
    "tar archive": _tar(_CSV),
    "XLSB": _zip("[Content_Types].xml", "xl/workbook.bin"),
    "ODS": _zip("mimetype", "content.xml"),
    "Word": _zip("[Content_Types].xml", "word/document.xml"),
    "ZIP archive": _zip("data.csv"),
}

CASES = (
    *(
        Case("packed", name, content, None, codes=("format_not_allowed",), mentions=(name,))
        for name, content in _REFUSED.items()
    ),
    Case("packed", "tar with gzip", gzip.compress(_tar(_CSV)), None, codes=("format_not_allowed",), mentions=("tar",)),
    Case("packed", "gzip with zero bytes after it", gzip.compress(_CSV) + bytes(100_000), _VALUES),
    Case(
        "packed",
        "gzip members with zero bytes between them",
        gzip.compress(_CSV[:9]) + bytes(512) + gzip.compress(_CSV[9:]),
        _VALUES,
    ),
    Case(
        "packed", "gzip with other bytes after it", gzip.compress(_CSV) + b"junk", None, codes=("compression_broken",)
    ),
    Case(
        "packed",
        "zstd after skippable frames",
        _skippable(b"1234") + _zstd(_CSV[:9]) + _skippable(b"") + _zstd(_CSV[9:]),
        _VALUES,
    ),
    Case(
        "packed",
        "gzip that is cut short",
        _CUT_GZIP,
        None,
        codes=("compression_broken",),
        mentions=(f"after {_GOOD_GZIP} bytes",),
    ),
    Case(
        "packed",
        "zstd that is cut short",
        _CUT_ZSTD,
        None,
        codes=("compression_broken",),
        mentions=(f"after {_GOOD_ZSTD} bytes",),
    ),
)
