"""Compresses the contents of random files."""

from __future__ import annotations

import gzip
from random import Random

import pyarrow as pa


def compressed(random: Random, form: str, content: bytes) -> tuple[str, bytes]:
    """Compress the content with gzip or zstd, or leave it as it is. Return the name of the format, with that of the
    compression if there is one, and the content."""
    way = random.choice(["", "", "", "gzip", "zstd"])
    if way == "gzip":
        return f"{form} gzip", gzip.compress(content, mtime=0)
    if way == "zstd":
        return f"{form} zstd", pa.compress(content, codec="zstd", asbytes=True)
    return form, content
