"""Process uploads from the queue until none are left, and then exit. This is the container's entry point.

    python -m flows.drain_queue

The exit code is 0 if no work was left or the stack is paused, and 2 if a setting is missing or invalid. It is 75 if
messages were returned to the queue, the task's time was over or AWS failed, and 143 after SIGTERM.
"""

import gc

if __name__ == "__main__":
    gc.disable()  # imports create hundreds of thousands of objects, none of which is garbage

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from prefect.exceptions import TerminationSignal
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
    temporary_settings,
)

from blocks.pause import Pause
from blocks.settings import SettingsMissing
from flows.composition import drains_of, parts_of_environment, task_identity
from flows.observability.crashes import end_of_task
from flows.observability.drain_run import DrainRun
from flows.observability.flow_run import FlowRunner
from flows.observability.recorder import Recorder
from flows.pipeline.announce import Announcer
from flows.pipeline.closing import Outlets
from flows.pipeline.drain import Drain, Live
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.json_log import log_json_lines
from flows.pipeline.receipt import Receipt
from flows.pipeline.stopping import Stopped
from flows.refinery.errors import SluiceError
from flows.refinery.validate.gx import gx

LOG = logging.getLogger("sluice.drain")

EXIT_MISCONFIGURED = 2
EXIT_MORE_TO_DO = 75  # sysexits.h: a temporary failure, try again
EXIT_STOPPED = 143  # 128 + SIGTERM

_AT_ONCE_SECONDS = 0.2  # a message that is already waiting in the queue is received within this time
_LEAVE_SECONDS = 15  # the time that the process may take to end after the drain; the state machine relies on it


def main() -> int:
    """Drain the queue named in the settings, and return the exit code."""
    gc.freeze()  # imported objects stay, so the garbage collector need not examine them
    gc.enable()
    log_json_lines()
    signal.signal(signal.SIGTERM, _stop)
    try:
        parts = parts_of_environment()
        drain, run = drain_of(parts)
    except SettingsMissing as error:
        LOG.error("misconfigured", extra={"fields": {"error": str(error)}})
        return EXIT_MISCONFIGURED
    _end_later(parts)
    code = _drain(drain)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this task holds no message any more
    _leave_soon(code)
    run.end()
    return code


def _drain(drain: Drain) -> int:
    try:
        return 0 if drain.run() else EXIT_MORE_TO_DO
    except Stopped:
        LOG.warning("stopped by SIGTERM")
        return EXIT_STOPPED
    except SluiceError as error:
        LOG.error("cannot continue", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
        return EXIT_MORE_TO_DO


def drain_of(parts: Parts) -> tuple[Drain, DrainRun]:
    """Return a drain of the queue in `parts`, and the flow run that shows the drain in Prefect."""
    runner, recorder, task = FlowRunner(parts), Recorder(parts), task_identity()
    run = DrainRun(parts, task, waiting=lambda: drain.waiting)

    def process(job: UploadJob) -> Receipt:
        try:
            return runner.process(job)
        except TerminationSignal:  # Prefect raises this on SIGTERM while a flow runs
            raise Stopped from None

    drain = Drain(
        parts,
        task,
        Live(process, runner.is_available),
        Outlets(Announcer(parts).announce, recorder.record, run.count),
        ask_for_tasks=drains_of(parts.settings).start_backlog,
        is_paused=Pause(parts.settings.published_bucket).is_on,
        end_of_task=end_of_task,
        during_first_wait=_importing_the_rest,
    )
    return drain, run


@contextmanager
def _importing_the_rest() -> Iterator[None]:
    """Import Great Expectations in another thread while the block waits for a message. If a message is received within
    _AT_ONCE_SECONDS, do not start the import, because it would slow down the processing of the message."""
    received = threading.Event()

    def import_it() -> None:
        if not received.wait(_AT_ONCE_SECONDS):
            gx()

    threading.Thread(target=import_it, name="imports", daemon=True).start()
    try:
        yield
    finally:
        received.set()


def _end_later(parts: Parts) -> None:
    """Start a timer that returns all messages to the queue and ends the process when the task's time is over, even in
    the middle of an upload. The batch note that lists the upload remains for another task."""

    def end() -> None:
        LOG.error("the task's time is over", extra={"fields": {"seconds": parts.settings.task_limit_seconds}})
        parts.queue.release(parts.queue.held)
        os._exit(EXIT_MORE_TO_DO)

    timer = threading.Timer(parts.settings.task_limit_seconds, end)
    timer.daemon = True
    timer.start()


def _leave_soon(code: int) -> None:
    """Start a timer that ends the process after _LEAVE_SECONDS, even if Prefect has not yet accepted the end of the
    flow run or its logs."""
    leaving = threading.Timer(_LEAVE_SECONDS, os._exit, [code])
    leaving.daemon = True
    leaving.start()


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped


if __name__ == "__main__":
    # With Prefect's defaults, retries would delay the data for too long.
    with temporary_settings(
        {
            PREFECT_API_REQUEST_TIMEOUT: 10,
            PREFECT_CLIENT_MAX_RETRIES: 3,
            PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,  # saves a request for each upload that arrives alone
            PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
        }
    ):
        code = main()
    sys.exit(code)
