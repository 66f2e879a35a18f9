"""Drain the queue: receive up to ten messages, process their uploads, announce, delete, record, until nothing comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from blocks.upload_queue import ReceivedMessage
from flows.pipeline.closing import Closing, Outlets
from flows.pipeline.delivery import Delivery, Process, delivery_of, process_delivery
from flows.pipeline.errors import NoUpload
from flows.pipeline.job import Parts, TaskIdentity
from flows.pipeline.leaving import Poll, may_leave
from flows.pipeline.stopping import Stopped
from flows.pipeline.task_notes import TaskNotes
from lambda_trigger.message import MessageUnreadable

LOG = logging.getLogger("sluice.drain")


class Drain:
    """One task's work at the queue."""

    def __init__(self, parts: Parts, task: TaskIdentity, process: Process, outlets: Outlets) -> None:
        """Args:
        process: processes one upload so that Prefect shows it meanwhile.
        outlets: where outcomes are reported.
        """
        self._parts = parts
        self._task = task
        self._process = process
        self._notes = TaskNotes(parts.store, task)
        self._closing = Closing(parts, outlets, self._notes)
        self._until = time.monotonic() + parts.settings.max_task_seconds

    def run(self) -> bool:
        """Work until the task may leave; return whether the queue was empty and everything is done."""
        try:
            with self._parts.queue.keep_invisible(self._notes.touch):
                while not self._is_over:
                    poll, messages = self._receive()
                    if messages:
                        self.work(messages)
                    elif may_leave(poll, stay_until=self._task.stay_until):
                        return not self._closing.returned
        except Stopped:
            self._stop()
            raise
        return False

    def work(self, messages: Sequence[ReceivedMessage]) -> None:
        """Process the uploads of one batch to their end."""
        deliveries = self._deliveries(messages)
        if not deliveries:
            return
        self._notes.open(deliveries)
        for place, delivery in enumerate(deliveries):
            if self._is_over:
                self._closing.give_back([each.message for each in deliveries[place:]])
                self._notes.abandon(deliveries[place:])
                return
            with self._notes.refining(delivery):
                process_delivery(delivery, self._process, self._parts, self._task)
            self._closing.close([delivery])

    @property
    def _is_over(self) -> bool:
        """Return whether the task begins nothing new."""
        return time.monotonic() >= self._until

    def _receive(self) -> tuple[Poll, list[ReceivedMessage]]:
        began, wait = time.time(), self._parts.settings.receive_wait_seconds
        messages = self._parts.queue.receive(wait_seconds=wait)
        return Poll(began, len(messages)), messages

    def _deliveries(self, messages: Sequence[ReceivedMessage]) -> list[Delivery]:
        """Return the deliveries of messages that are of uploads; the others move to the dead-letter queue."""
        deliveries = []
        for message in messages:
            try:
                deliveries.append(delivery_of(message, self._parts))
            except (MessageUnreadable, NoUpload) as error:
                fields = {"message_id": message.message_id, "error": f"{type(error).__name__}: {error}"}
                LOG.error("message refused", extra={"fields": fields})
                self._closing.give_up([message])
        return deliveries

    def _stop(self) -> None:
        held = self._parts.queue.held
        LOG.warning("stopped, returning the messages", extra={"fields": {"messages": len(held)}})
        self._closing.give_back(held)
        self._notes.abandon()
