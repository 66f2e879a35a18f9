"""Random compression of a file's content."""

from __future__ import annotations

import gzip
from random import Random

import pyarrow as pa


def compressed(random: Random, form: str, content: bytes) -> tuple[str, bytes]:
    """Sometimes compress the content. Return the form's name, which then includes the compression, and the content."""
    way = random.choice(["", "", "", "gzip", "zstd"])
    if way == "gzip":
        return f"{form} gzip", gzip.compress(content, mtime=0)
    if way == "zstd":
        return f"{form} zstd", pa.compress(content, codec="zstd", asbytes=True)
    return form, content
