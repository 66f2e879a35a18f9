"""The commands of `sluice`: one module each, and what they share."""

import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console

# C0 and C1 controls, and what reorders text (Unicode's Bidi_Control), separates lines, or is half a character, as in a
# path that is not UTF-8; our own line feeds stay.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return `text` with every control character as its escape: a terminal would obey those in an object's key.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html allows them in keys."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def visible_line(text: str) -> str:
    """Return `text` as `visible` does, with line feeds and tabs escaped too: a key cannot forge a line."""
    return visible(text.replace("\n", "\\n").replace("\t", "\\t"))


def first_of(lines: Sequence[str], shown: int) -> list[str]:
    """Return the first lines, and how many more there are."""
    return [*lines[:shown], *([f"and {len(lines) - shown:,} more"] if len(lines) > shown else [])]


class SafeConsole(Console):
    """A console that shows control characters instead of sending them to the terminal."""

    def render_str(self, text: str, **options: Any) -> Any:
        """Render markup; everything that is printed as a string, also in tables, comes here."""
        return super().render_str(visible(text), **options)

    def out(self, *objects: Any, **options: Any) -> None:
        """Print without markup."""
        super().out(*(visible(str(one)) for one in objects), **options)


def new_console(*, stderr: bool = False) -> Console:
    """Return the console that commands print to: it neither wraps lines, which others may parse, nor colours words."""
    return SafeConsole(stderr=stderr, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error for the person who typed the command."""
    new_console(stderr=True).out(f"sluice: {message}", style="red")
