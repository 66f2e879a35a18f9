"""Limits how long code may run that may never end, such as a dataset's custom step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_AGAIN_SECONDS = 5  # raise it again after this time, because code may catch everything (`except:`)


class TimeIsUp(BaseException):
    """The time limit was reached. This is not an Exception, so that no handler of ordinary errors catches it."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeIsUp in the block once it has run for `seconds`.

    This works only in the main thread, where signals are handled; in other threads, and with None, there is no limit.
    It cannot interrupt a loop in C code; then only the limits of the whole task apply (blocks/limits.py).
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
