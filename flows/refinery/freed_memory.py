"""Return freed memory from the C library's allocator to the operating system."""

import ctypes
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")

_ITEMS = 8  # partitions between two returns: a return costs CPU time for the pages that are needed again


def returning_memory(items: Iterable[_T]) -> Iterator[_T]:
    """Yield the items, and return freed memory after every eighth one. Otherwise the gaps between blocks in use would
    grow with the file: to 100 MB for 1 GB of CSV."""
    for number, item in enumerate(items, start=1):
        yield item
        del item
        if number % _ITEMS == 0:
            return_freed_memory()


def return_freed_memory() -> None:
    """Return all memory pages that have no block in use to the operating system."""
    with suppress(AttributeError):  # C libraries other than glibc
        ctypes.CDLL(None).malloc_trim(0)
