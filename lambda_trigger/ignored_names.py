"""Recognizes objects that are not data, such as markers and files that are still being written, by name. Pure."""

from fnmatch import fnmatchcase

# _SUCCESS and _temporary of Spark and Hive, .DS_Store, Office's lock files, partial transfers, Hadoop's checksums.
IGNORED_NAMES = "_*,.[!.]*,~$*,*.tmp,*.filepart,*.part,*.crc"


def is_ignored(key: str, incoming_prefix: str, patterns: str) -> bool:
    """Return whether the file's name, or that of a folder it is in below the prefix, matches one of the patterns.

    Args:
        patterns: shell patterns, separated by commas; case does not matter.
    """
    parts = key.removeprefix(incoming_prefix).lower().split("/")
    return any(fnmatchcase(part, pattern.strip().lower()) for pattern in patterns.split(",") for part in parts)
