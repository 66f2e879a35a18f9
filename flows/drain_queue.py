"""The container's entry point: take uploads from the queue until it is empty, then go.

    python -m flows.drain_queue

Exit codes: 0 when the receipt of SLUICE_RUN_ID exists (or when none was asked for), 2 when the environment does not
configure the pipeline, 75 when the receipt does not exist, 143 after SIGTERM without that receipt.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

from prefect.exceptions import TerminationSignal
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
    temporary_settings,
)

from blocks.settings import SettingsMissing
from blocks.upload_queue import MessageLost, ReceivedMessage
from flows.composition import Pipeline, TaskIdentity, pipeline, task_identity
from flows.observability.flow_run import Observer
from flows.pipeline.json_log import lines_about, log_json_lines, place_of
from flows.pipeline.protocol import ReceiptConflict
from flows.pipeline.receipt import Chain, Receipt
from flows.pipeline.stages import StageBroke
from flows.process_upload import Assignment
from flows.refinery.errors import SluiceError, TransientError
from lambda_trigger.message import MessageUnreadable, UploadMessage

LOG = logging.getLogger("sluice.drain")

EXIT_MISCONFIGURED = 2
EXIT_NO_RECEIPT = 75  # sysexits.h: a temporary failure, try again
EXIT_STOPPED = 143  # 128 + SIGTERM

_LAST_WORD_SECONDS = 15  # how long the end may take, once everything is done
_LAST_LOOK_SECONDS = 1  # how long to wait for more work when one's own is done


class Stopped(BaseException):
    """SIGTERM came. Not an Exception, so that no handler of ordinary errors swallows it."""


class Drain:
    """Takes messages and sees each through: receive, process, acknowledge last."""

    def __init__(self, parts: Pipeline, identity: TaskIdentity, observer: Observer) -> None:
        """Args:
        identity: which run this task was started for.
        """
        self._parts = parts
        self._identity = identity
        self._observer = observer
        self._own_receipt_seen = False

    def run(self) -> int:
        """Drain the queue; return the exit code."""
        started = idle_since = time.monotonic()
        limits = self._parts.settings
        while time.monotonic() - started < limits.max_task_seconds:
            wait = _LAST_LOOK_SECONDS if self.own_receipt_exists() else limits.receive_wait_seconds
            message = self._parts.queue.receive(wait_seconds=wait)
            if message:
                self._handle(message)
                idle_since = time.monotonic()
            elif self.own_receipt_exists() or time.monotonic() - idle_since >= limits.idle_seconds:
                break
        return self.exit_code()

    def exit_code(self) -> int:
        """0 if and only if the receipt that this task was started for exists."""
        return 0 if self.own_receipt_exists() else EXIT_NO_RECEIPT

    def own_receipt_exists(self) -> bool:
        """Whether the run that this task was started for has its receipt, whoever wrote it."""
        if not self._own_receipt_seen:
            run_id = self._identity.run_id
            self._own_receipt_seen = run_id is None or self._parts.store.receipt(run_id) is not None
        return self._own_receipt_seen

    def _handle(self, message: ReceivedMessage) -> None:
        try:
            upload = UploadMessage.from_json(message.body)
        except MessageUnreadable as error:
            _log(logging.ERROR, "message unreadable", message, error=str(error))
            self._release(message, after_seconds=0)  # its deliveries run out at once: the dead-letter queue keeps it
            return
        with lines_about(run_id=upload.run_id):
            self._see_through(message, upload)

    def _see_through(self, message: ReceivedMessage, upload: UploadMessage) -> None:
        _log(logging.INFO, "received", message, key=upload.key, attempt=upload.attempt)
        started = time.monotonic()
        try:
            receipt = self._process(message, upload)
        except ReceiptConflict as error:
            _log(logging.ERROR, "receipt conflict", message, error=str(error))
            self._acknowledge(message)  # a receipt stands; delivering this again would change nothing
        except SluiceError as error:
            self._give_back(message, error)
        except Exception as error:  # noqa: BLE001 (what nobody foresaw with one upload must not end the others' task)
            self._give_back(message, StageBroke(f"{type(error).__name__} at {place_of(error.__traceback__)}"))
        except (Stopped, TerminationSignal):
            _log(logging.WARNING, "stopped, giving the message back", message)
            self._release(message, after_seconds=0)
            raise
        else:
            self._acknowledge(message)
            _log(
                logging.INFO,
                "done",
                message,
                dataset=receipt.contract.dataset,
                status=str(receipt.status),
                rows=receipt.rows.model_dump(),
                seconds=round(time.monotonic() - started, 3),
            )

    def _process(self, message: ReceivedMessage, upload: UploadMessage) -> Receipt:
        chain = Chain(
            message_id=message.message_id,
            receive_count=message.receive_count,
            execution_arn=self._identity.execution_arn if upload.run_id == self._identity.run_id else None,
            task_arn=self._identity.task_arn,
        )
        with self._parts.queue.kept(message):
            return self._observer.process(Assignment(self._parts, upload, chain, log=self._identity.log))

    def _give_back(self, message: ReceivedMessage, error: SluiceError) -> None:
        delay = self._parts.settings.retry_delay_seconds * message.receive_count
        _log(
            logging.WARNING if isinstance(error, TransientError) else logging.ERROR,
            "not done, giving the message back",
            message,
            error=f"{type(error).__name__}: {error}",
            again_in_seconds=delay,
        )
        self._release(message, after_seconds=delay)

    def _acknowledge(self, message: ReceivedMessage) -> None:
        try:
            self._parts.queue.acknowledge(message)
        except SluiceError as error:
            # The receipt is there: the message will come again, find it, and be deleted then.
            _log(logging.WARNING, "message not deleted", message, error=f"{type(error).__name__}: {error}")

    def _release(self, message: ReceivedMessage, *, after_seconds: int) -> None:
        try:
            self._parts.queue.release(message, after_seconds=after_seconds)
        except MessageLost:
            return
        except SluiceError as error:
            # It becomes visible by itself when its timeout ends.
            _log(logging.WARNING, "message not given back", message, error=f"{type(error).__name__}: {error}")


def main() -> int:
    """Drain the queue that the environment names; return the exit code."""
    log_json_lines()
    signal.signal(signal.SIGTERM, _stop)
    try:
        parts = pipeline()
        drain = Drain(parts, task_identity(), Observer(parts.settings.prefect_names.deployment("process-upload")))
    except SettingsMissing as error:
        LOG.error("misconfigured", extra={"fields": {"error": str(error)}})
        return EXIT_MISCONFIGURED
    try:
        return drain.run()
    except (Stopped, TerminationSignal):
        LOG.warning("stopped by SIGTERM")
        return 0 if _quietly(drain.own_receipt_exists) else EXIT_STOPPED
    except SluiceError as error:
        LOG.error("cannot go on", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
        return 0 if _quietly(drain.own_receipt_exists) else EXIT_NO_RECEIPT


def _quietly(ask: Any) -> bool:
    try:
        return bool(ask())
    except SluiceError:
        return False


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped


def _log(level: int, event: str, message: ReceivedMessage, **fields: Any) -> None:
    LOG.log(
        level,
        event,
        extra={"fields": {"message_id": message.message_id, "receive_count": message.receive_count, **fields}},
    )


if __name__ == "__main__":
    # Prefect's patience is longer than the data should have to wait for its display.
    with temporary_settings(
        {
            PREFECT_API_REQUEST_TIMEOUT: 10,
            PREFECT_CLIENT_MAX_RETRIES: 3,
            PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
        }
    ):
        code = main()
    # Prefect sends the last logs while the interpreter ends; when its API is away that would take minutes. Everything
    # that counts is done by now.
    last_word = threading.Timer(_LAST_WORD_SECONDS, os._exit, [code])
    last_word.daemon = True
    last_word.start()
    sys.exit(code)
