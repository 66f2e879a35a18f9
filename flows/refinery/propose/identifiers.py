"""Find a regex for the identifiers in a column, if all of them follow one pattern."""

import re
from collections.abc import Sequence

_MAX_PARTS = 9  # text with more parts is prose or a path, not an identifier
_MAX_CHARACTERS = 64
_KNOWN = (
    ("UUIDs", r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"),
    ("e-mail addresses", r"^[^@\s]+@[^@\s]+\.[^@\s]+$"),
    ("web addresses", r"^https?://\S+$"),
    ("IPv4 addresses", r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$"),
    ("hexadecimal digests", r"^([0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})$"),
)
_PART = re.compile(r"[0-9]+|[A-Z]+|[a-z]+|[^0-9A-Za-z]")


def identifier_regex(texts: Sequence[str]) -> tuple[str, str] | None:
    """Return a regex that all strings match, and a description of the strings; None if they do not look like
    identifiers with a common pattern.

    Each string is split into runs of digits, runs of upper-case or lower-case ASCII letters, and single other
    characters. A part that is the same in all strings is kept literally, unless it is a multi-digit number. Any other
    part becomes a character class with the range of its lengths.
    """
    if not texts or any(len(text) > _MAX_CHARACTERS for text in texts):
        return None
    for what, regex in _KNOWN:
        if all(map(re.compile(regex).match, texts)):
            return regex, what
    split = [_PART.findall(text) for text in texts]
    patterns = {tuple(map(_class_of, parts)) for parts in split}
    if len(patterns) != 1:
        return None
    (pattern,) = patterns
    # Identifiers have digits and no spaces; other strings may be names.
    if len(pattern) > _MAX_PARTS or "[0-9]" not in pattern or any(part.isspace() for part in pattern):
        return None
    columns = list(zip(*split, strict=True))
    regex = "".join(_part_regex(kind, column) for kind, column in zip(pattern, columns, strict=True))
    return f"^{regex}$", "identifiers with the same pattern"


def _class_of(part: str) -> str:
    if part[0].isascii() and part.isalnum():
        return "[0-9]" if part.isdigit() else "[A-Z]" if part.isupper() else "[a-z]"
    return part


def _part_regex(kind: str, texts: Sequence[str]) -> str:
    if len(set(texts)) == 1 and (kind != "[0-9]" or len(texts[0]) == 1):
        return re.escape(texts[0]).replace(r"\-", "-")
    lengths = {len(text) for text in texts}
    low, high = min(lengths), max(lengths)
    if low == high == 1:
        return kind
    return f"{kind}{{{low}}}" if low == high else f"{kind}{{{low},{high}}}"
