"""Recognizes, by their names, objects that are not data, such as markers and files that are still being written."""

from fnmatch import fnmatchcase

# These patterns match _SUCCESS and _temporary of Spark and Hive, .DS_Store, Office lock files, partial transfers and
# Hadoop checksums.
IGNORED_NAMES = "_*,.[!.]*,~$*,*.tmp,*.filepart,*.part,*.crc"


def is_ignored(key: str, incoming_prefix: str, patterns: str) -> bool:
    """Return whether the name of a file, or of a folder under the prefix that contains it, matches one of the patterns.

    Args:
        patterns: shell patterns, separated by commas; case is ignored.
    """
    parts = key.removeprefix(incoming_prefix).lower().split("/")
    return any(fnmatchcase(part, pattern.strip().lower()) for pattern in patterns.split(",") for part in parts)
