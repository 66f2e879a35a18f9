"""Closes deliveries in the background: one thread announces outcomes and deletes or returns messages, and another one
updates Prefect. So neither EventBridge nor a slow Prefect server delays the next upload, and each call covers many
uploads.
"""

import logging
import time
from collections.abc import Callable
from queue import Empty, Queue
from threading import Event, Thread

from flows.pipeline.closing import Closing
from flows.pipeline.delivery import Delivery
from flows.pipeline.json_log import place_of

LOG = logging.getLogger("sluice.drain")
_AT_ONCE_ANNOUNCED, _AT_ONCE_RECORDED = 10, 100  # the most outcomes in one call to EventBridge, and to Prefect
_GATHER_ANNOUNCED_SECONDS, _GATHER_RECORDED_SECONDS = 1.0, 10.0  # a call to Prefect costs the same for one or many
Deliveries = Queue[Delivery]


class ClosingLine:
    """A queue of deliveries that two background threads close."""

    def __init__(self, closing: Closing) -> None:
        self._closing = closing
        self._over: Deliveries = Queue()
        self._announced: Deliveries = Queue()
        self._hurry = Event()
        self._threads: list[Thread] = []

    def put(self, delivery: Delivery) -> None:
        if not self._threads:
            self._start("announcing", self._over, _AT_ONCE_ANNOUNCED, _GATHER_ANNOUNCED_SECONDS, self._announce)
            self._start("recording", self._announced, _AT_ONCE_RECORDED, _GATHER_RECORDED_SECONDS, self._closing.record)
        self._over.put(delivery)

    def finish(self) -> None:
        """Close the remaining deliveries without waiting for more, and return when all of them are closed."""
        self._hurry.set()
        self._over.join()
        self._announced.join()
        self._hurry.clear()

    def _announce(self, deliveries: list[Delivery]) -> None:
        self._closing.announce_and_acknowledge(deliveries)
        for delivery in deliveries:
            self._announced.put(delivery)

    def _start(
        self, name: str, line: Deliveries, at_once: int, seconds: float, close: Callable[[list[Delivery]], None]
    ) -> None:
        def run() -> None:
            while True:
                together = self._gather(line, at_once, seconds)
                try:
                    close(together)
                except Exception as error:  # noqa: BLE001 (the messages are returned when the task ends)
                    fields = {"error": type(error).__name__, "place": place_of(error.__traceback__)}
                    LOG.error("%s failed", name, extra={"fields": fields})
                for _ in together:
                    line.task_done()

        thread = Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _gather(self, line: Deliveries, at_once: int, seconds: float) -> list[Delivery]:
        """Wait for a delivery, and return it together with those that follow within `seconds`, at most `at_once` in
        total."""
        together = [line.get()]
        until = time.monotonic() + seconds
        while len(together) < at_once:
            left = 0.01 if self._hurry.is_set() else until - time.monotonic()
            try:
                together.append(line.get(timeout=max(min(left, 0.1), 0.001)))
            except Empty:
                if self._hurry.is_set() or time.monotonic() >= until:
                    break
        return together
