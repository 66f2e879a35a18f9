"""Stops an upload's work when a person cancels its flow run in Prefect."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from flows.pipeline.errors import UploadCancelled


class _Interrupted(BaseException):
    """Ends the stage that is running. It is not an Exception, so that no handler of ordinary errors catches it."""


class Cancellation:
    """Allows another thread to stop the stages that the main thread runs. It cannot interrupt a loop in C code; then
    the next stage does not begin."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._may_interrupt = False

    def ask(self) -> None:
        """Stop the stage that is running, and prevent further ones. Any thread may call this, and more than once."""
        self._asked.set()
        main = threading.main_thread().ident
        if self._may_interrupt and main is not None:
            signal.pthread_kill(main, signal.SIGUSR1)

    @contextmanager
    def stops(self) -> Iterator[None]:
        """Raise UploadCancelled in the block as soon as `ask` is called. Outside the main thread, check only once,
        before the block."""
        self._raise_if_asked()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # The handler is never removed: without one, a signal that arrives late would end the process.
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
