"""Measure how long each part of the stage `refine` takes."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from flows.refinery.errors import TerminalError

_T = TypeVar("_T")
ELSEWHERE = ""
"""The part for time that is not counted here, because the code that does the work counts it."""


class PartSeconds(dict[str, float]):
    """Seconds by part. The time of a nested part is not counted for the outer one. A TerminalError that leaves a part
    gets the part's name."""

    def __init__(self) -> None:
        super().__init__()
        self._open = threading.local()
        self._lock = threading.Lock()

    def add(self, others: Mapping[str, float]) -> None:
        """Add seconds that were counted elsewhere."""
        with self._lock:
            for part, seconds in others.items():
                if part != ELSEWHERE:
                    self[part] = self.get(part, 0.0) + seconds

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the time inside the block for a part."""
        outer = self._switch_to(part)
        try:
            yield
        except TerminalError as error:
            error.part = error.part or part or None
            raise
        finally:
            self._switch_to(outer)

    def inside(self, part: str, items: Iterable[_T]) -> Iterator[_T]:
        """Yield the same items, and count the time that it takes to produce them for a part."""
        iterator = iter(items)
        while True:
            with self.of(part):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def _switch_to(self, part: str) -> str:
        now, outer = time.perf_counter(), getattr(self._open, "part", ELSEWHERE)
        self.add({outer: now - getattr(self._open, "since", now)})
        self._open.part, self._open.since = part, now
        return outer
