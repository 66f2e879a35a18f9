"""Waits for an event in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.looking import looks

_T = TypeVar("_T")


def eventually(what: Callable[[], _T | None], *, seconds: float) -> _T:
    """Return the first true result of `what`.

    Raises:
        AssertionError: `what` returned nothing true within `seconds`. The message contains its last result.
    """
    answer = None
    for _ in looks(seconds):
        answer = what()
        if answer:
            return answer
    raise AssertionError(f"not within {seconds:.0f} seconds: the last answer was {answer!r}")
