"""Stops the processing of an upload when a person cancels its flow run in Prefect."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from flows.pipeline.errors import UploadCancelled


class _Interrupted(BaseException):
    """Raised to end the stage that is running. This class is not an Exception, so that handlers of ordinary errors do
    not catch it."""


class Cancellation:
    """Allows another thread to stop the stages that the main thread runs. A loop in C code cannot be interrupted; in
    that case, the next stage does not start."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._may_interrupt = False

    def ask(self) -> None:
        """Stop the stage that is running, and prevent further stages. Any thread may call this, even repeatedly."""
        self._asked.set()
        main = threading.main_thread().ident
        if self._may_interrupt and main is not None:
            signal.pthread_kill(main, signal.SIGUSR1)

    @contextmanager
    def stops(self) -> Iterator[None]:
        """Raise UploadCancelled in the block as soon as `ask` is called. Outside the main thread, check only once,
        before the block runs."""
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
