"""Calls a function at regular intervals in the background."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def repeating(do: Callable[[], object], every_seconds: float, name: str, *, end_seconds: float = 0) -> Iterator[None]:
    """Call `do` in a daemon thread with the given name while the block runs, each time `every_seconds` after the end of
    the previous call. Then wait at most `end_seconds` for a call that is in progress."""
    over = Event()

    def run() -> None:
        while not over.wait(every_seconds):
            do()

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(end_seconds)
