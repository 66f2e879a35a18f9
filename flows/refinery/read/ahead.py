"""Produce or consume items in a thread while the caller works. This saves time because pyarrow releases the GIL while
it reads and writes."""

import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")
_WAITING = 1  # how many items may wait while an earlier one is used, so that the thread need not wait for the caller


@contextmanager
def ahead(items: Iterator[_T], *, is_small: bool) -> Iterator[Iterator[_T]]:
    """Yield an iterator over `items`. A thread produces the next item while the caller uses the current one.

    Args:
        is_small: whether the items are so few or small that a thread would take more time than it saves. If so, none is
            used.
    """
    if is_small:
        yield items
        return
    context = contextvars.copy_context()  # so that the thread's log lines have the same fields
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:

        def produce() -> _T | None:
            return context.run(lambda: next(items, None))

        def produced() -> Iterator[_T]:
            waiting = pool.submit(produce)
            while (item := waiting.result()) is not None:
                waiting = pool.submit(produce)
                yield item

        yield produced()


@contextmanager
def behind(use: Callable[[_T], None], *, is_small: bool, abandon: Callable[[], None]) -> Iterator[Callable[[_T], None]]:
    """Yield a function that passes an item to `use`, which runs in a thread while the caller makes the next item.

    Args:
        is_small: as in `ahead`.
        abandon: called if an exception ends the `with` block, before the thread is awaited. It must make `use` return
            soon.
    """
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, thread_name_prefix="behind") as pool:
        unfinished: deque[Future[None]] = deque()

        def hand_over(item: _T) -> None:
            while len(unfinished) > _WAITING:
                unfinished.popleft().result()
            unfinished.append(pool.submit(context.run, use, item))

        try:
            yield use if is_small else hand_over
            while unfinished:
                unfinished.popleft().result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            abandon()
            raise
