"""Closes deliveries of processed uploads: announces outcomes, deletes or returns messages, and updates Prefect.

An outcome is announced before its message is deleted. If EventBridge does not accept it, the batch note is kept, and
lists the outcome as not announced.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blocks.upload_queue import MessageLost, Problems, ReceivedMessage, by_reason
from flows.pipeline.announce import OutcomeNotice, notice_of
from flows.pipeline.attempts import Attempt, remove_attempt, write_attempt
from flows.pipeline.data_docs import list_pages
from flows.pipeline.delivery import Delivery
from flows.pipeline.job import Parts
from flows.pipeline.receipt import Receipt
from flows.pipeline.task_notes import TaskNotes
from flows.refinery.errors import SluiceError

LOG = logging.getLogger("sluice.drain")


Announce = Callable[[Sequence[OutcomeNotice]], frozenset[str]]
"""A function that announces outcomes, and returns the run IDs of those that were accepted. It never raises."""


@dataclass(frozen=True, slots=True)
class Outlets:
    """The functions that report outcomes. None of them raises an exception. The first two return the run IDs of the
    outcomes that were accepted."""

    announce: Announce  # notifies EventBridge (flows/pipeline/announce.py)
    # shows receipts, and failed attempts after which Sluice gave up, in Prefect (flows/observability/recorder.py)
    record: Callable[[Sequence[Receipt | Attempt]], frozenset[str]]
    # counts receipts and failed attempts (flows/observability/drain_run.py)
    count: Callable[[Sequence[Receipt], Sequence[Attempt]], object] = lambda _receipts, _failures: None


class Closing:
    """Closes the deliveries of a task.

    Attributes:
        returned: the IDs of the messages that were returned to the queue and that this task has not received since.
    """

    def __init__(self, parts: Parts, outlets: Outlets, notes: TaskNotes) -> None:
        self._parts = parts
        self._outlets = outlets
        self._notes = notes
        self.returned: set[str] = set()

    def close(self, deliveries: Sequence[Delivery]) -> None:
        """Announce outcomes, delete or return the messages, and record the outcomes in Prefect."""
        self.announce_and_acknowledge(deliveries)
        self.record(deliveries)

    def announce_and_acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Store failed attempts, announce outcomes, delete or return the messages, and count the outcomes."""
        for delivery in deliveries:
            self._say_why(delivery)
        self._announce(deliveries)
        self._end_messages(deliveries)
        self._outlets.count(
            [each.receipt for each in deliveries if each.receipt and not each.is_duplicate],
            [each.failure for each in deliveries if each.failure],
        )

    def record(self, deliveries: Sequence[Delivery]) -> None:
        """Record the outcomes in Prefect, list the Data Docs pages, and update the batch notes."""
        list_pages(self._parts.store, [each.receipt for each in deliveries if each.receipt and not each.is_duplicate])
        waiting = {each: each.outcome for each in deliveries if each.outcome and not each.recorded}
        taken = self._outlets.record(list(waiting.values())) if waiting else frozenset()
        for delivery in waiting:
            delivery.recorded = delivery.run_id in taken
        for delivery in deliveries:
            delivery.is_closed = True
        self._notes.settle()

    def _say_why(self, delivery: Delivery) -> None:
        """Store the failed attempt of a failed delivery. If a redelivered upload has a receipt, delete its failed
        attempt."""
        try:
            if delivery.failure:
                write_attempt(self._parts.store, delivery.failure)
            elif delivery.came_again:
                remove_attempt(self._parts.store, delivery.run_id)
        except SluiceError as error:
            fields = {"run_id": delivery.run_id, "error": f"{type(error).__name__}: {error}"}
            LOG.warning("failed attempt not updated", extra={"fields": fields})

    def _announce(self, deliveries: Sequence[Delivery]) -> None:
        waiting = {each: each.outcome for each in deliveries if each.outcome and not each.announced}
        notices = [notice_of(outcome, self._parts.settings) for outcome in waiting.values()]
        taken = self._outlets.announce(notices) if notices else frozenset()
        for delivery in waiting:
            delivery.announced = delivery.run_id in taken

    def _end_messages(self, deliveries: Sequence[Delivery]) -> None:
        queue, settings, done, hopeless = self._parts.queue, self._parts.settings, [], []
        later: dict[int, list[ReceivedMessage]] = defaultdict(list)
        for delivery in deliveries:
            message, failure = delivery.message, delivery.failure
            self.returned.discard(message.message_id)
            if delivery.outcome and not delivery.announced and not self._notes.is_kept(delivery):
                later[settings.retry_delay_seconds].append(message)  # otherwise no task would announce it
            elif failure is None:
                done.append(message)
            elif not failure.given_up:
                later[settings.retry_delay_seconds * message.receive_count].append(message)
            elif message.receive_count >= settings.max_receive_count:
                queue.release([message])  # SQS moves it to the dead-letter queue at the next receive call
            else:
                hopeless.append(message)
        report("message not deleted", queue.acknowledge(done))
        self.give_up(hopeless)
        for delay, messages in later.items():
            self.give_back(messages, after_seconds=delay)

    def give_up(self, messages: Sequence[ReceivedMessage]) -> None:
        """Move messages to the dead-letter queue. If a message cannot be moved, return it to the upload queue, so that
        it is moved after its next delivery."""
        problems = self._parts.queue.give_up(messages)
        report("message not moved to the dead-letter queue", problems)
        self.give_back(list(problems), after_seconds=self._parts.settings.retry_delay_seconds)

    def give_back(self, messages: Sequence[ReceivedMessage], *, after_seconds: int = 0) -> None:
        """Return messages to the queue, so that they are delivered again after `after_seconds`."""
        self.returned |= {message.message_id for message in messages}
        report("message not returned", self._parts.queue.release(messages, after_seconds=after_seconds))


def report(event: str, problems: Problems) -> None:
    """Log the messages for which a call to SQS failed. They become visible again when their visibility timeout ends."""
    for reason, messages in by_reason(problems).items():
        level = logging.INFO if isinstance(problems[messages[0]], MessageLost) else logging.WARNING
        ids = [message.message_id for message in messages]
        LOG.log(level, event, extra={"fields": {"messages": ids, "error": reason}})
