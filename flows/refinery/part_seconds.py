"""Measure how long each part of the `refine` stage takes."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from flows.refinery.errors import TerminalError

_T = TypeVar("_T")
ELSEWHERE = ""
"""The name of a part whose time is not counted here, because the code that does the work counts it itself."""


class PartSeconds(dict[str, float]):
    """The seconds that each part took. Time spent in a nested part does not count for the outer part. If a
    TerminalError is raised inside a part, its attribute `part` is set to the innermost part."""

    def __init__(self) -> None:
        super().__init__()
        self._open = threading.local()
        self._lock = threading.Lock()

    def add(self, others: Mapping[str, float]) -> None:
        """Add the seconds of each part in `others`, such as those that were measured in another process."""
        with self._lock:
            for part, seconds in others.items():
                if part != ELSEWHERE:
                    self[part] = self.get(part, 0.0) + seconds

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the time that is spent inside the `with` block to the seconds of `part`."""
        outer = self._switch_to(part)
        try:
            yield
        except TerminalError as error:
            error.part = error.part or part or None
            raise
        finally:
            self._switch_to(outer)

    def inside(self, part: str, items: Iterable[_T]) -> Iterator[_T]:
        """Yield the items, none of which may be None, and add the time that producing them takes to the seconds of
        `part`."""
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
