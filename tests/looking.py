"""Polling intervals for events in another process: short at first, then longer.

Each poll costs the servers, and the machine's two cores, time that the other process then lacks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.05, 0.3


def looks(seconds: float) -> Iterator[None]:
    """Yield at each polling time, a last time after `seconds`."""
    began = time.monotonic()
    waited = 0.0
    while waited <= seconds:
        yield
        time.sleep(min(_LONGEST_SECONDS, _SHORTEST_SECONDS + waited / 20))
        waited = time.monotonic() - began
    yield
