"""A time limit for code that has none, such as a dataset's custom step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_AGAIN_SECONDS = 5  # for code that swallows everything, as `except:` does


class TimeIsUp(BaseException):
    """The time limit was reached. Not an Exception, so that no handler of ordinary errors swallows it."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeIsUp in the block once it has run for `seconds`.

    This works in the main thread only, where signals are handled; elsewhere, and with None, there is no limit. It
    cannot interrupt code that is stuck outside of Python (in a C loop). The execution that waits for a task stops it
    after an hour; nothing stops a task that the sweep or a worker started.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler_before = signal.signal(signal.SIGALRM, _ring)
    left_before, again_before = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left_before, again_before)
        signal.signal(signal.SIGALRM, handler_before)


def _ring(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TimeIsUp
