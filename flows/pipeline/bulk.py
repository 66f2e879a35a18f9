"""Processes many uploads at once: worker threads fetch, publish and record while the main thread refines.

The refine stage uses the CPU, and must run in the main thread, because its time limit and SIGTERM are signals, which
Python handles only in the main thread. The other stages mostly wait for S3.
"""

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, NoReturn

from flows.pipeline.delivery import Delivery, Process, process_delivery
from flows.pipeline.job import Parts, TaskIdentity
from flows.pipeline.json_log import log_context
from flows.pipeline.run import run_upload
from flows.pipeline.stopping import Stopped
from flows.pipeline.task_notes import TaskNotes

_WORKERS = 4
_LOW = 8  # more messages are received when fewer uploads than this are waiting for a worker
_RECEIVE_SECONDS = 3  # how long a stopped task waits for a receive call that is in progress
_LARGE_BYTES = 64 * 1024**2  # files larger than this are processed one at a time, so that they fit on the disk


class Bulk:
    """Processes deliveries concurrently until `receive` returns no more of them.

    Args:
        receive: returns further deliveries after writing their batch note, or an empty sequence to stop.
        live: returns a function that processes the whole upload in the main thread, or None if only its refine stage
            has to run there.
        over: called with each delivery once it has an outcome or has failed.
        is_late: returns whether the task's lifetime has ended, so that no further upload may be started.
        give_back: called with the deliveries that are not processed because of that.
    """

    def __init__(
        self,
        parts: Parts,
        task: TaskIdentity,
        notes: TaskNotes,
        receive: Callable[[], Sequence[Delivery]],
        live: Callable[[Delivery], Process | None],
        over: Callable[[Delivery], None],
        is_late: Callable[[], bool],
        give_back: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self._parts = parts
        self._task = task
        self._notes = notes
        self._receive = receive
        self._live = live
        self._over = over
        self._is_late = is_late
        self._give_back = give_back
        self._waiting: SimpleQueue[Delivery | None] = SimpleQueue()
        self._for_main: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._unfinished = 0
        self._receiving: Thread | None = None
        self._no_more = False
        self._stopping = Event()
        self._large = Lock()

    def run(self, deliveries: Sequence[Delivery]) -> None:
        """Process these deliveries and those that `receive` returns in the meantime. Raise Stopped if SIGTERM
        arrives."""
        workers = [Thread(target=self._work, name=f"upload-{n}", daemon=True) for n in range(_WORKERS)]
        for worker in workers:
            worker.start()
        self._take(deliveries)
        try:
            while self._unfinished or self._receiving:
                self._for_main.get()()
        except BaseException:
            self._stopping.set()
            raise
        finally:
            for _ in workers:
                self._waiting.put(None)

    def end_receiving(self) -> None:
        """Wait a few seconds for a receive call that is in progress, because its messages must be returned too."""
        if self._receiving:
            self._receiving.join(_RECEIVE_SECONDS)

    # --- in the main thread -----------------------------------------------------------------------------------

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        self._unfinished += len(deliveries)
        for delivery in deliveries:
            self._waiting.put(delivery)
        self._receive_if_few()

    def _receive_if_few(self) -> None:
        if self._receiving or self._no_more or self._waiting.qsize() >= _LOW:
            return
        self._receiving = Thread(target=self._receive_more, name="receive", daemon=True)
        self._receiving.start()

    def _received(self, deliveries: Sequence[Delivery]) -> None:
        self._receiving = None
        self._no_more = self._no_more or not deliveries
        self._take(deliveries)

    def _finished(self, delivery: Delivery) -> None:
        self._unfinished -= 1
        if delivery.receipt or delivery.failure:
            self._over(delivery)
        else:
            self._give_back([delivery])
        self._receive_if_few()

    def _do(self, delivery: Delivery, work: Callable[[], Any], answer: Future[Any]) -> None:
        try:
            with self._notes.refining(delivery), log_context(run_id=delivery.run_id):
                answer.set_result(work())
        except Stopped as stopped:
            answer.set_exception(stopped)
            raise
        except BaseException as error:  # noqa: BLE001 (the worker that waits for it raises it)
            answer.set_exception(error)

    # --- in other threads -------------------------------------------------------------------------------------

    def _receive_more(self) -> None:
        deliveries: Sequence[Delivery] = ()
        try:
            deliveries = self._receive()
        finally:
            self._for_main.put(lambda: self._received(deliveries))

    def _work(self) -> None:
        while (delivery := self._waiting.get()) is not None and not self._stopping.is_set():
            alone = self._large if delivery.upload.size_bytes > _LARGE_BYTES else nullcontext()
            try:
                with alone:  # which may take until the task's lifetime has ended
                    if not self._is_late():
                        process_delivery(delivery, self._process_of(delivery), self._parts, self._task)
            except Stopped:
                return
            except BaseException as error:  # noqa: BLE001 (the main thread, which waits for this upload, raises it)
                self._for_main.put(partial(_raise, error))
                return
            self._for_main.put(lambda delivery=delivery: self._finished(delivery))  # type: ignore[misc]

    def _process_of(self, delivery: Delivery) -> Process:
        live = self._live(delivery)
        if live:
            return lambda job: self._in_main_thread(delivery, lambda: live(job))

        def call(stage: Callable[..., Any], *values: Any) -> Any:
            if self._stopping.is_set():
                raise Stopped
            if stage.__name__ != "refine":
                return stage(*values)
            context = contextvars.copy_context()  # contains the fields that log_context adds to log lines
            return self._in_main_thread(delivery, lambda: context.run(stage, *values))

        return lambda job: run_upload(self._parts, job, call)

    def _in_main_thread(self, delivery: Delivery, work: Callable[[], Any]) -> Any:
        answer: Future[Any] = Future()
        self._for_main.put(lambda: self._do(delivery, work, answer))
        return answer.result()


def _raise(error: BaseException) -> NoReturn:
    raise error
