"""The commands of `sluice`, one module each, and the console output that they share."""

import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console

# C0 and C1 control characters except line feed and tab, characters that reorder text (Unicode's Bidi_Control) or
# separate lines, and lone surrogates, which occur in a path that is not UTF-8.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return `text` with the characters in _UNSAFE escaped, so that the terminal does not interpret them. S3 allows
    them in object keys: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html"""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def visible_line(text: str) -> str:
    """Return `visible(text)` with line feeds and tabs escaped as well, so that an object key cannot fake a line of
    output."""
    return visible(text.replace("\n", "\\n").replace("\t", "\\t"))


def first_of(lines: Sequence[str], shown: int) -> list[str]:
    """Return the first `shown` lines and, if there are more, a last line such as "and 5 more"."""
    return [*lines[:shown], *([f"and {len(lines) - shown:,} more"] if len(lines) > shown else [])]


class SafeConsole(Console):
    """A console that prints control characters in escaped form, for example \\x1b, so that they have no effect."""

    def render_str(self, text: str, **options: Any) -> Any:
        """Render a string with markup; rich calls this for every string that it prints, including those in tables."""
        return super().render_str(visible(text), **options)

    def out(self, *objects: Any, **options: Any) -> None:
        """Print objects as plain text, without markup."""
        super().out(*(visible(str(one)) for one in objects), **options)


def new_console(*, stderr: bool = False) -> Console:
    """Return the console that commands print to. It does not wrap lines, because scripts may parse them, and colours
    only text that has markup or a style."""
    return SafeConsole(stderr=stderr, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error message on standard error, in red."""
    new_console(stderr=True).out(f"sluice: {message}", style="red")
