"""Makes many AWS calls concurrently, because each call mostly waits for the response."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_LOOKS = 8
_T = TypeVar("_T")
_R = TypeVar("_R")


def at_once(look: Callable[[_T], _R], things: Iterable[_T]) -> Iterator[_R]:
    """Call `look` with each item of `things`, up to eight at the same time, and yield the results in order."""
    with ThreadPoolExecutor(_LOOKS) as pool:
        yield from pool.map(look, things)
