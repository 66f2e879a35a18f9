"""Drains the queue: receives messages in batches of up to ten and processes their uploads, until the queue is empty.

Each upload's outcome is announced, then its message is deleted, then the outcome is recorded in Prefect. If few uploads
are waiting, they are processed one by one, each as a live flow run. If many are waiting, or if Prefect is down, they
are processed concurrently (flows/pipeline/bulk.py) and recorded in Prefect afterwards. The exception is a dataset that
limits its concurrent uploads, because only a live flow run can hold a slot of the limit.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from blocks.upload_queue import ReceivedMessage
from flows.pipeline.backlog import Backlog
from flows.pipeline.bulk import Bulk
from flows.pipeline.catching_up import CatchingUp
from flows.pipeline.closing import Closing, Outlets
from flows.pipeline.closing_line import ClosingLine
from flows.pipeline.dead_tasks import DeadTasks, EndOfTask
from flows.pipeline.delivery import Delivery, Process, delivery_of, has_limit, process_delivery
from flows.pipeline.errors import NoUpload
from flows.pipeline.job import Parts, TaskIdentity
from flows.pipeline.leaving import Poll, may_leave
from flows.pipeline.stopping import Stopped
from flows.pipeline.task_notes import TaskNotes
from flows.refinery.errors import SluiceError
from lambda_trigger.message import MessageUnreadable

LOG = logging.getLogger("sluice.drain")
_PREFETCH_WAIT_SECONDS = 1  # with 0, SQS would query only some of its servers


@dataclass(frozen=True, slots=True)
class Live:
    """The functions for processing an upload as a live flow run, which Prefect shows while it runs."""

    process: Process  # processes the upload
    is_possible: Callable[[], bool]  # returns whether Prefect can currently be used


class Drain:
    """Drains the queue in one task.

    Args:
        live: processes uploads one by one, while Prefect shows them.
        outlets: the functions that report outcomes.
        ask_for_tasks: given a number, starts a drain that launches tasks until that many are running.
        is_paused: returns whether the stack is paused.
        end_of_task: returns how the task with a given ARN ended, or None if that is unknown.
        during_first_wait: returns a context manager in which the first receive call is made.
    """

    def __init__(
        self,
        parts: Parts,
        task: TaskIdentity,
        live: Live,
        outlets: Outlets,
        *,
        ask_for_tasks: Callable[[int], object],
        is_paused: Callable[[], bool],
        end_of_task: EndOfTask,
        during_first_wait: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._parts = parts
        self._task = task
        self._live = live
        self._backlog = Backlog(parts, ask_for_tasks, is_paused)
        self._notes = TaskNotes(parts.store, task)
        self._closing = Closing(parts, outlets, self._notes)
        self._line = ClosingLine(self._closing)
        self._dead_tasks = DeadTasks(parts, task, end_of_task)
        self._catching_up = CatchingUp(parts, task, outlets, self._dead_tasks)
        self._bulk: Bulk | None = None
        self._during_wait = during_first_wait
        self._is_stopped = False
        self._until = time.monotonic() + parts.settings.max_task_seconds

    @property
    def waiting(self) -> int:
        """Return how many messages were waiting in the queue at the last count."""
        return self._backlog.waiting

    def run(self) -> bool:
        """Process uploads until the queue is empty or the stack is paused. Return True unless messages were returned
        for another try, or the task's lifetime ended first. After SIGTERM, return all messages and raise Stopped."""
        try:
            with self._parts.queue.keep_invisible(self._notes.touch), self._backlog.watched():
                self._drain()
        except Stopped:
            self._stop()
            raise
        if self._parts.queue.held:  # closing them failed
            self._closing.give_back(self._parts.queue.held)
        return not self._closing.returned and not self._is_over

    def work(self, messages: Sequence[ReceivedMessage]) -> None:
        """Process the uploads of one batch. If many messages are waiting or Prefect is down, also receive and process
        further batches."""
        waiting = self._open(messages)
        while waiting:
            if self._is_over:
                self._give_back(waiting)
                return
            if self._is_bulk:
                self._work_in_bulk(waiting)
                return
            self._work_live(waiting.pop(0))

    def _drain(self) -> None:
        # Since the last message: whether `_finish` is done, and until when it is tried again.
        has_finished, patient_until = False, 0.0
        while not self._is_over:
            if self._backlog.is_paused:
                self._finish()
                if self._backlog.is_paused_now():  # checked again now that no message is held
                    LOG.info("paused, leaving")
                    return
            poll, messages = self._receive()
            if messages:
                has_finished, patient_until = False, 0.0
                self.work(messages)
                continue
            self._backlog.is_deep = False
            if has_finished and may_leave(poll, stay_until=self._task.stay_until):
                return
            if not has_finished or self._notes.left:
                self._finish()
                patient_until = patient_until or time.monotonic() + self._patience_seconds
                has_finished = not self._notes.left or time.monotonic() >= patient_until
        self._finish()

    @property
    def _patience_seconds(self) -> float:
        """Return how long to keep trying if Prefect or EventBridge is unavailable. Afterwards, the scheduled sweep
        launches another task for the remaining batch notes."""
        return self._parts.settings.visibility_timeout_seconds / 2

    def _finish(self) -> None:
        """Close all deliveries and finish batch notes. The task must then receive again before it may end, unless the
        stack is paused or the task's lifetime has ended."""
        self._line.finish()
        self._catching_up.finish(self._notes.left, self._until)

    # --- one upload at a time, or many at once -----------------------------------------------------------------------

    @property
    def _is_bulk(self) -> bool:
        return self._backlog.is_deep or not self._live.is_possible()

    @property
    def _is_over(self) -> bool:
        """Return whether the task has reached the end of its lifetime and must not start another upload."""
        return time.monotonic() >= self._until

    def _work_live(self, delivery: Delivery) -> None:
        with self._notes.refining(delivery):
            process_delivery(delivery, self._live.process, self._parts, self._task)
        self._closing.close([delivery])

    def _work_in_bulk(self, deliveries: Sequence[Delivery]) -> None:
        self._bulk = Bulk(
            self._parts,
            self._task,
            self._notes,
            self._receive_more,
            self._live_if_limited,
            self._line.put,
            is_late=lambda: self._is_over,
            give_back=self._give_back,
        )
        self._bulk.run(deliveries)

    def _live_if_limited(self, delivery: Delivery) -> Process | None:
        is_limited = has_limit(delivery.upload, self._parts) and self._live.is_possible()
        return self._live.process if is_limited else None

    # --- messages ----------------------------------------------------------------------------------------------------

    def _receive(self) -> tuple[Poll, list[ReceivedMessage]]:
        began, waiting = time.time(), self._during_wait()
        with waiting:
            messages = self._parts.queue.receive(wait_seconds=self._parts.settings.receive_wait_seconds)
        self._during_wait = nullcontext
        return Poll(began, len(messages)), messages

    def _receive_more(self) -> list[Delivery]:
        """Receive the next batch while others are being processed. An empty result ends bulk processing."""
        if self._is_over or self._backlog.is_paused or not self._is_bulk:
            return []
        try:
            messages = self._parts.queue.receive(wait_seconds=_PREFETCH_WAIT_SECONDS)
        except SluiceError as error:
            LOG.warning("receiving failed", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
            return []
        return [] if self._is_stopped else self._open(messages)

    def _open(self, messages: Sequence[ReceivedMessage]) -> list[Delivery]:
        """Write the note of a batch, close the deliveries that Sluice gives up on without trying them again, and return
        the others."""
        deliveries = [delivery for message in messages if (delivery := self._delivery_of(message))]
        if not deliveries:
            return []
        self._notes.open(deliveries)
        self._dead_tasks.explain(deliveries)
        given_up = [delivery for delivery in deliveries if delivery.failure]
        if given_up:
            self._closing.close(given_up)
        return [delivery for delivery in deliveries if not delivery.failure]

    def _delivery_of(self, message: ReceivedMessage) -> Delivery | None:
        """Return the delivery for an upload message. Move any other message to the dead-letter queue, and return
        None."""
        try:
            return delivery_of(message, self._parts)
        except (MessageUnreadable, NoUpload) as error:
            fields = {"message_id": message.message_id, "error": f"{type(error).__name__}: {error}"}
            LOG.error("message rejected", extra={"fields": fields})
            self._closing.give_up([message])
            return None

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._closing.give_back([delivery.message for delivery in deliveries])
        self._notes.abandon(deliveries)

    def _stop(self) -> None:
        held = self._parts.queue.held
        LOG.warning("stopped, returning the messages", extra={"fields": {"messages": len(held)}})
        self._is_stopped = True
        self._closing.give_back(held)
        if self._bulk:
            self._bulk.end_receiving()
            self._closing.give_back(self._parts.queue.held)
        self._notes.abandon()
