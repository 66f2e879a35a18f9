"""When to look for what happens in another process: often at first, then seldom.

Each look costs the servers that are asked, and the machine's two cores, time that the process then lacks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.05, 0.3


def looks(seconds: float) -> Iterator[None]:
    """Come back each time that it is time to look; once more at the end of `seconds`, and then no more."""
    began = time.monotonic()
    waited = 0.0
    while waited <= seconds:
        yield
        time.sleep(min(_LONGEST_SECONDS, _SHORTEST_SECONDS + waited / 20))
        waited = time.monotonic() - began
    yield
