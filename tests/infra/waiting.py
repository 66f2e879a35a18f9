"""Waits for what happens in another process: asks again and again, and gives up with what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_PAUSE_SECONDS = 0.05


def eventually(what: Callable[[], _T | None], *, seconds: float) -> _T:
    """Return the first true answer of `what`.

    Raises:
        AssertionError: there was none within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} seconds: the last answer was {answer!r}")
        time.sleep(_PAUSE_SECONDS)
