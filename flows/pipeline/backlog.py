"""Checks how many uploads are waiting and whether the stack is paused, when a task starts and then every 30 seconds.

If many uploads are waiting, the task requests more tasks, and records uploads in Prefect only after they have been
processed. If the stack is paused, the task ends.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blocks.repeating import repeating
from flows.pipeline.job import Parts
from flows.refinery.errors import SluiceError

LOG = logging.getLogger("sluice.drain")
PERIOD_SECONDS = 30
_ASK_WITHIN_SECONDS = 20  # ask early, so that the execution that is named after the half minute also starts in it
_LOOK_SECONDS = 1.0


class Backlog:
    """Counts the waiting messages and checks for a pause, when a task starts and then once every half minute.

    Args:
        ask_for_tasks: given a number, starts a drain that launches tasks until that many are running
            (blocks/drains.py).
        is_paused: returns whether the stack is paused.

    Attributes:
        is_deep: whether more messages than the setting `live_backlog` were waiting at some point since the queue was
            last empty.
        waiting: how many messages were waiting at the last count.
        is_paused: whether the stack was paused at the last check.
    """

    def __init__(
        self,
        parts: Parts,
        ask_for_tasks: Callable[[int], object],
        is_paused: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._look_for_pause = is_paused
        self._queue = parts.queue
        self._settings = parts.settings
        self._ask_for_tasks = ask_for_tasks
        self._clock = clock
        self._counted: int | None = None
        self.is_deep = self.is_paused = False
        self.waiting = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep counting in a background thread while the block runs, so that a large file does not delay the launch of
        more tasks."""
        self.look()
        with repeating(self.look, _LOOK_SECONDS, "backlog"):
            yield

    def is_paused_now(self) -> bool:
        """Return whether the stack was paused at the last check and still is, so that a task does not end because of a
        pause that is over. Return False if the call to S3 fails."""
        try:
            self.is_paused = self.is_paused and self._look_for_pause()
        except SluiceError as error:
            LOG.warning("could not check for a pause", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
            return False
        return self.is_paused

    def look(self) -> None:
        """Count the messages, check for a pause, and request more tasks if many messages are waiting. After the first
        call, do this only once per half minute, in its first 20 seconds. SluiceErrors are logged, not raised."""
        half_minute, second = divmod(self._clock(), PERIOD_SECONDS)
        may_ask = second < _ASK_WITHIN_SECONDS
        if self._counted == half_minute or (self._counted is not None and not may_ask):
            return
        self._counted = int(half_minute)
        try:
            waiting = self.waiting = self._queue.count_waiting()
            self.is_deep = self.is_deep or waiting > self._settings.live_backlog
            self.is_paused = self._look_for_pause()
            tasks = min(self._settings.max_tasks, -(-waiting // self._settings.messages_per_task))
            if may_ask and tasks > 1 and not self.is_paused:
                self._ask_for_tasks(tasks)
                LOG.info("requested more tasks", extra={"fields": {"tasks": tasks, "waiting": waiting}})
        except SluiceError as error:
            LOG.warning("backlog not counted", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
