"""A time limit for code that might never end, such as a dataset's custom step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_AGAIN_SECONDS = 5  # TimeIsUp is raised again at this interval, because code may catch everything (`except:`)


class TimeIsUp(BaseException):
    """The time limit was reached. This class is not an Exception, so that handlers of ordinary errors do not catch
    it."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeIsUp in the block once it has run for `seconds`.

    This works only in the main thread, where signals are handled. In other threads, or if `seconds` is None, there is
    no limit. A loop in C code cannot be interrupted; only the limits of the whole task apply to it (blocks/limits.py).
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
