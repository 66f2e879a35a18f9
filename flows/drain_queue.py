"""The container's entry point: process uploads from the queue until it is empty, then exit.

    python -m flows.drain_queue

Exit codes: 0 when the receipt of SLUICE_RUN_ID exists (or SLUICE_RUN_ID is not set), 2 when the environment does not
configure the pipeline, 75 when the receipt does not exist, 143 after SIGTERM without that receipt.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from prefect.exceptions import TerminationSignal
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
    temporary_settings,
)

from blocks.settings import SettingsMissing
from blocks.upload_queue import MessageLost, ReceivedMessage
from flows.composition import parts_of_environment, task_identity
from flows.observability.flow_run import FlowRunner
from flows.pipeline.commit import has_receipt
from flows.pipeline.errors import NoUpload, StageBroke
from flows.pipeline.job import Parts, TaskIdentity, UploadJob
from flows.pipeline.json_log import log_context, log_json_lines, place_of
from flows.pipeline.protocol import ReceiptConflict
from flows.pipeline.receipt import Chain, Receipt
from flows.refinery.errors import SluiceError, TransientError
from lambda_trigger.message import MessageUnreadable, UploadMessage

LOG = logging.getLogger("sluice.drain")

EXIT_MISCONFIGURED = 2
EXIT_NO_RECEIPT = 75  # sysexits.h: a temporary failure, try again
EXIT_STOPPED = 143  # 128 + SIGTERM

_SHUTDOWN_SECONDS = 15  # how long the interpreter may take to exit, once everything is done
_LAST_POLL_SECONDS = 1  # how long to poll for more messages once this task's upload is done


class Stopped(BaseException):
    """SIGTERM arrived. Not an Exception, so that no handler of ordinary errors swallows it."""


class QueueConsumer:
    """Receives messages, processes the upload of each, and deletes the message last."""

    def __init__(self, parts: Parts, identity: TaskIdentity, process: Callable[[UploadJob], Receipt]) -> None:
        """Args:
        identity: which run this task was started for.
        process: processes one upload and returns its receipt.
        """
        self._parts = parts
        self._identity = identity
        self._process = process
        self._own_receipt_seen = False

    def run(self) -> int:
        """Drain the queue; return the exit code: 0 if and only if the receipt that this task was started for exists."""
        started = idle_since = time.monotonic()
        limits = self._parts.settings
        while time.monotonic() - started < limits.max_task_seconds:
            wait = _LAST_POLL_SECONDS if self.own_receipt_exists() else limits.receive_wait_seconds
            message = self._parts.queue.receive(wait_seconds=wait)
            if message:
                self.handle(message)
                idle_since = time.monotonic()
            elif self.own_receipt_exists() or time.monotonic() - idle_since >= limits.idle_seconds:
                break
        return 0 if self.own_receipt_exists() else EXIT_NO_RECEIPT

    def own_receipt_exists(self) -> bool:
        """Return whether the run that this task was started for has its receipt, no matter which task wrote it."""
        if not self._own_receipt_seen:
            run_id = self._identity.run_id
            self._own_receipt_seen = run_id is None or has_receipt(self._parts.store, run_id)
        return self._own_receipt_seen

    def handle(self, message: ReceivedMessage) -> None:
        """Process the upload of one message, and delete the message or give it back."""
        try:
            upload = self._upload_of(message)
        except (MessageUnreadable, NoUpload) as error:
            _log(logging.ERROR, "message refused", message, error=f"{type(error).__name__}: {error}")
            self._release(message, after_seconds=0)  # returned at once, until it moves to the dead-letter queue
            return
        with log_context(run_id=upload.run_id):
            self._handle_upload(message, upload)

    def _upload_of(self, message: ReceivedMessage) -> UploadMessage:
        upload, settings = UploadMessage.from_json(message.body), self._parts.settings
        if not settings.is_upload(upload.bucket, upload.key):
            raise NoUpload(f"s3://{upload.bucket}/{upload.key} is not below {settings.uploads_uri}")
        return upload

    def _handle_upload(self, message: ReceivedMessage, upload: UploadMessage) -> None:
        _log(logging.INFO, "received", message, key=upload.key, attempt=upload.attempt)
        started = time.monotonic()
        try:
            with self._parts.queue.keep_invisible(message):
                receipt = self._process(self._job(message, upload))
        except ReceiptConflict as error:
            _log(logging.ERROR, "receipt conflict", message, error=str(error))
            self._acknowledge(message)  # there is a receipt; another delivery would change nothing
        except SluiceError as error:
            self._give_back(message, error)
        except Exception as error:  # noqa: BLE001 (one upload's unexpected error must not end the task of the others)
            self._give_back(message, StageBroke(f"{type(error).__name__} at {place_of(error.__traceback__)}"))
        except (Stopped, TerminationSignal):
            _log(logging.WARNING, "stopped, returning the message", message)
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

    def _job(self, message: ReceivedMessage, upload: UploadMessage) -> UploadJob:
        chain = Chain(
            message_id=message.message_id,
            receive_count=message.receive_count,
            execution_arn=self._identity.execution_arn if upload.run_id == self._identity.run_id else None,
            task_arn=self._identity.task_arn,
        )
        return UploadJob(upload, chain, log=self._identity.log)

    def _give_back(self, message: ReceivedMessage, error: SluiceError) -> None:
        delay = self._parts.settings.retry_delay_seconds * message.receive_count
        _log(
            logging.WARNING if isinstance(error, TransientError) else logging.ERROR,
            "not done, returning the message",
            message,
            error=f"{type(error).__name__}: {error}",
            again_in_seconds=delay,
        )
        self._release(message, after_seconds=delay)

    def _acknowledge(self, message: ReceivedMessage) -> None:
        try:
            self._parts.queue.acknowledge(message)
        except SluiceError as error:
            # The receipt is there: SQS delivers the message again; it is deleted then.
            _log(logging.WARNING, "message not deleted", message, error=f"{type(error).__name__}: {error}")

    def _release(self, message: ReceivedMessage, *, after_seconds: int) -> None:
        try:
            self._parts.queue.release(message, after_seconds=after_seconds)
        except MessageLost:
            return
        except SluiceError as error:
            # It becomes visible by itself when its timeout ends.
            _log(logging.WARNING, "message not returned", message, error=f"{type(error).__name__}: {error}")


def main() -> int:
    """Drain the queue that the environment names; return the exit code."""
    log_json_lines()
    signal.signal(signal.SIGTERM, _stop)
    try:
        parts = parts_of_environment()
        consumer = QueueConsumer(parts, task_identity(), FlowRunner(parts).process)
    except SettingsMissing as error:
        LOG.error("misconfigured", extra={"fields": {"error": str(error)}})
        return EXIT_MISCONFIGURED
    try:
        return consumer.run()
    except (Stopped, TerminationSignal):
        LOG.warning("stopped by SIGTERM")
        code = EXIT_STOPPED
    except SluiceError as error:
        LOG.error("cannot go on", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
        code = EXIT_NO_RECEIPT
    with suppress(SluiceError):
        if consumer.own_receipt_exists():
            return 0
    return code


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped


def _log(level: int, event: str, message: ReceivedMessage, **fields: Any) -> None:
    LOG.log(
        level,
        event,
        extra={"fields": {"message_id": message.message_id, "receive_count": message.receive_count, **fields}},
    )


if __name__ == "__main__":
    # Prefect's defaults retry for longer than the data should wait for its display.
    with temporary_settings(
        {
            PREFECT_API_REQUEST_TIMEOUT: 10,
            PREFECT_CLIENT_MAX_RETRIES: 3,
            PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,  # a request for each upload that comes alone
            PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
        }
    ):
        code = main()
    # Prefect sends the last logs while the interpreter exits. When its API is down, that would take minutes, and the
    # work is already done.
    shutdown = threading.Timer(_SHUTDOWN_SECONDS, os._exit, [code])
    shutdown.daemon = True
    shutdown.start()
    sys.exit(code)
