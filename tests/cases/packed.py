"""Compressions and containers that are not read: named, with what to do."""

from __future__ import annotations

from tests.cases.case import Case

CASES = tuple(
    Case("packed", name, content, None, codes=("format_not_allowed",), mentions=(name,))
    for name, content in (
        ("lz4", b"\x04\x22\x4d\x18\x64\x40\xa7\x0b\x00\x00\x80a,b\n1,2\n3,4\n\x00\x00\x00\x00"),
        ("snappy", b"\xff\x06\x00\x00sNaPpY\x01\x0c\x00\x00\x00\x00\x00\x00a,b\n1,2\n"),
        (".Z", b"\x1f\x9d\x90a\x58\x88\xa1\xb4\xb0\x00\xff\x10"),
        ("empty ZIP", b"PK\x05\x06" + bytes(18)),
    )
)
