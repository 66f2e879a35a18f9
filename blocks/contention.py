"""Spaces out the attempts of a worker to change an object that other workers change at the same time."""

import random
import time
from collections.abc import Iterator

_ATTEMPTS = 8
_LONGEST_WAIT_SECONDS = 1.0


def attempts() -> Iterator[None]:
    """Yield once for each of eight attempts. Wait a random time before each further attempt. The maximum wait grows to
    almost a second, so it is unlikely that a worker loses every attempt."""
    for attempt in range(_ATTEMPTS):
        time.sleep(random.uniform(0, _LONGEST_WAIT_SECONDS) * attempt / _ATTEMPTS)  # noqa: S311 (not a secret)
        yield
