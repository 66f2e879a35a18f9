"""Stops an upload's work when a person cancels its flow run in Prefect."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from flows.pipeline.errors import UploadCancelled


class _Interrupted(BaseException):
    """The stage at work is to end. Not an Exception, so that no handler of ordinary errors swallows it."""


class Cancellation:
    """Lets another thread stop the stages that the main thread runs. It cannot interrupt code that is stuck outside of
    Python (in a C loop); the stage after that does not begin."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._may_interrupt = False

    def ask(self) -> None:
        """Stop the stage at work, and let none begin. Safe to call again, from any thread."""
        self._asked.set()
        main = threading.main_thread().ident
        if self._may_interrupt and main is not None:
            signal.pthread_kill(main, signal.SIGUSR1)

    @contextmanager
    def stops(self) -> Iterator[None]:
        """Raise UploadCancelled in the block as soon as that is asked; outside of the main thread only at its begin."""
        self._raise_if_asked()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # The handler stays: without one, a signal that comes too late would end the process.
        signal.signal(signal.SIGUSR1, self._interrupt)
        try:
            self._may_interrupt = True
            self._raise_if_asked()
            try:
                yield
            finally:
                self._may_interrupt = False
        except _Interrupted:
            self._may_interrupt = False
            self._raise_if_asked()

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._may_interrupt:
            raise _Interrupted

    def _raise_if_asked(self) -> None:
        if self._asked.is_set():
            raise UploadCancelled("the upload's flow run was cancelled in Prefect; redrive the message to process it")
