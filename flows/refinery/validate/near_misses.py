"""Find columns of a file whose names are almost those in the contract, and describe the difference."""

import unicodedata
from collections.abc import Iterable


def near_misses(missing: Iterable[str], seen: Iterable[str]) -> str:
    """Return the end of a rejection message, which describes how names of columns in the file differ from names of
    missing columns. Return "" if no name is close.

    Args:
        missing: the columns in the contract that the file lacks.
        seen: the file's columns that are not in the contract.
    """
    by_key: dict[str, str] = {}
    for name in seen:
        by_key.setdefault(_key(name), name)
    by_key.pop("", None)
    pairs = [(name, by_key[_key(name)]) for name in missing if _key(name) in by_key]
    found = [f"the file has {wanted!r} as {_visible(name)}, {_difference(name, wanted)}" for wanted, name in pairs[:5]]
    if not found:
        return ""
    return f" ({'; '.join(found)}); write the names as the file has them, or correct the file"


def _key(name: str) -> str:
    """Return a name without everything that often differs by accident: case, accents, white space and punctuation."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", name).casefold() if sign.isalnum())


def _difference(seen: str, wanted: str) -> str:
    """Describe how a column's name in the file differs from its name in the contract."""
    different = [
        f"with {_named(sign)} {_place(seen, sign)}"
        for sign in dict.fromkeys(seen)
        if _is_blank(sign) and sign not in wanted
    ]
    different += [
        f"without its {_named(sign)}" for sign in dict.fromkeys(wanted) if _is_blank(sign) and sign not in seen
    ]
    bare_seen, bare_wanted = _without_blanks(seen), _without_blanks(wanted)
    if bare_seen == bare_wanted:
        return " and ".join(different) or "with spaces elsewhere"
    composed = [unicodedata.normalize("NFC", name) for name in (bare_seen, bare_wanted)]
    if composed[0] == composed[1]:
        form = "NFD" if unicodedata.is_normalized("NFD", bare_seen) else "NFC"
        return " and ".join([*different, f"in Unicode's other form ({form})"])
    is_case = composed[0].casefold() == composed[1].casefold()
    return " and ".join([*different, "in a different case" if is_case else "with other accents or punctuation"])


def _is_blank(sign: str) -> bool:
    """Return whether a character is invisible: white space, a control character, a byte order mark or a zero-width
    character."""
    return sign.isspace() or unicodedata.category(sign) in ("Cf", "Cc")


def _without_blanks(name: str) -> str:
    return "".join(sign for sign in name if not _is_blank(sign))


def _named(sign: str) -> str:
    if sign == "\ufeff":
        return "a byte order mark"
    name = unicodedata.name(sign, "").lower()
    return f"a {name} (U+{ord(sign):04X})" if name else f"the character U+{ord(sign):04X}"


def _place(name: str, sign: str) -> str:
    return "in front" if name.startswith(sign) else "after it" if name.endswith(sign) else "in it"


def _visible(name: str) -> str:
    """Return a name in quotes, in which invisible characters other than spaces, and combining characters, are
    escaped."""
    odd = {sign for sign in name if _is_blank(sign) and sign != " "} | {
        sign for sign in name if unicodedata.combining(sign)
    }
    return "'" + "".join(f"\\u{ord(sign):04x}" if sign in odd else sign for sign in name) + "'"
