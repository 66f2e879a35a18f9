"""Shows a command's progress if it takes longer than a second."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

FIRST_SECONDS = 1.0
_REFRESH_SECONDS = 0.25


@contextmanager
def shown_after_a_second(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """If the console is a terminal, show a temporary status line with `what`, the current step and the elapsed time,
    beginning after one second. Yield a function that sets the current step."""
    begun, doing, ended = time.monotonic(), [""], threading.Event()

    def line() -> str:
        return f"{what}{doing[0]} ({time.monotonic() - begun:.0f} s)"

    def show() -> None:
        if ended.wait(FIRST_SECONDS):
            return
        with console.status(line()) as status:
            while not ended.wait(_REFRESH_SECONDS):
                status.update(line())

    thread = threading.Thread(target=show, daemon=True, name="progress")
    if console.is_terminal:
        thread.start()
    try:
        yield lambda now: doing.__setitem__(0, f": {now}")
    finally:
        ended.set()
        if console.is_terminal:
            thread.join()
