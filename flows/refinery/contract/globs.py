"""Globs for object keys: `*` and `?` match within one folder, `**` matches across folders."""

import re
from functools import cache

_WILD = re.compile(r"(\*\*/?|\*|\?)")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def glob_to_regex(glob: str) -> re.Pattern[str]:
    """Compile a glob to a regex, for use with `fullmatch`."""
    return re.compile("".join(_MEANING.get(part, re.escape(part)) for part in _WILD.split(glob)), re.DOTALL)


def globs_overlap(one: str, other: str) -> bool:
    """Return whether a key can match both globs."""
    return _overlap(_parts(one), _parts(other))


def _parts(glob: str) -> tuple[str, ...]:
    """Split a glob into wildcards and single characters."""
    return tuple(one for part in _WILD.split(glob) for one in ([part] if part in _MEANING else part))


@cache
def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    for mine, theirs in ((one, other), (other, one)):
        if mine[:1] == ("**/",):
            return _overlap(mine[1:], theirs) or _overlap(("**", "/", *mine[1:]), theirs)
        if mine[:1] in (("*",), ("**",)):
            may_go_on = bool(theirs) and (mine[0] == "**" or theirs[0] != "/")
            return _overlap(mine[1:], theirs) or (may_go_on and _overlap(mine, theirs[1:]))
    if not one or not other:
        return one == other
    is_same = one[0] == other[0] or ("?" in (one[0], other[0]) and "/" not in (one[0], other[0]))
    return is_same and _overlap(one[1:], other[1:])
