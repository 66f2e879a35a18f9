"""Names of objects that are not data: markers, and files that a program is still writing. Pure."""

from fnmatch import fnmatchcase

# _SUCCESS and _temporary of Spark and Hive, .DS_Store, Office's lock files, partial transfers, Hadoop's checksums.
IGNORED_NAMES = "_*,.[!.]*,~$*,*.tmp,*.filepart,*.part,*.crc"


def is_ignored(key: str, incoming_prefix: str, patterns: str) -> bool:
    """Return whether the file, or a folder of it below the prefix, has one of these names.

    Args:
        patterns: shell patterns with commas in between; case does not matter.
    """
    parts = key.removeprefix(incoming_prefix).lower().split("/")
    return any(fnmatchcase(part, pattern.strip().lower()) for pattern in patterns.split(",") for part in parts)
