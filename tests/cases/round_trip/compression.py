"""Bytes as they are, or compressed."""

from __future__ import annotations

import gzip
from random import Random

import pyarrow as pa


def compressed(random: Random, form: str, content: bytes) -> tuple[str, bytes]:
    """A form's name and content, now and then compressed."""
    way = random.choice(["", "", "", "gzip", "zstd"])
    if way == "gzip":
        return f"{form} gzip", gzip.compress(content, mtime=0)
    if way == "zstd":
        return f"{form} zstd", pa.compress(content, codec="zstd", asbytes=True)
    return form, content
