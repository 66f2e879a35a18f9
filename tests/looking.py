"""Polling intervals for waiting on another process, which are short at first and then grow.

Each poll takes CPU time from the process that the test waits for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.05, 0.3


def looks(seconds: float) -> Iterator[None]:
    """Yield each time that the caller should poll, and a last time once `seconds` have passed."""
    began = time.monotonic()
    waited = 0.0
    while waited <= seconds:
        yield
        time.sleep(min(_LONGEST_SECONDS, _SHORTEST_SECONDS + waited / 20))
        waited = time.monotonic() - began
    yield
