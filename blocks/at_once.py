"""Makes many AWS calls concurrently, because each call mostly waits for the response."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_THREADS = 8
_T = TypeVar("_T")
_R = TypeVar("_R")


def at_once(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Call a function with each item, up to eight items at the same time, and yield the results in the items' order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(function, items)
