"""Produce the next item in a thread: pyarrow reads, casts and writes without holding Python's lock."""

import contextvars
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")


@contextmanager
def ahead(items: Iterator[_T], *, is_small: bool) -> Iterator[Iterator[_T]]:
    """The same items, of which the next is produced in a thread while the caller uses the one before.

    Args:
        is_small: whether a thread would cost more than it saves; then there is none.
    """
    if is_small:
        yield items
        return
    context = contextvars.copy_context()  # the fields of log lines
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:

        def produce() -> _T | None:
            return context.run(lambda: next(items, None))

        def produced() -> Iterator[_T]:
            waiting = pool.submit(produce)
            while (item := waiting.result()) is not None:
                waiting = pool.submit(produce)
                yield item

        yield produced()
