"""Processes one delivery of an upload's SQS message. The result is a receipt or a failed attempt."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from blocks.upload_queue import ReceivedMessage
from flows.pipeline.attempts import Attempt
from flows.pipeline.commit import read_receipt
from flows.pipeline.errors import NoUpload, StageBroke, UploadCancelled
from flows.pipeline.job import Parts, TaskIdentity, UploadJob
from flows.pipeline.json_log import log_context, place_of
from flows.pipeline.protocol import ReceiptConflict, is_done
from flows.pipeline.receipt import Chain, Receipt
from flows.refinery.errors import SluiceError, TransientError
from lambda_trigger.message import UploadMessage, folder_of

LOG = logging.getLogger("sluice.drain")

Process = Callable[[UploadJob], Receipt]
"""A function that processes one upload and returns its receipt."""

_GIVEN_UP_AT_ONCE = (UploadCancelled,)


@dataclass(eq=False)
class Delivery:
    """One delivery of an upload's message to this task, and its result."""

    message: ReceivedMessage
    upload: UploadMessage
    receipt: Receipt | None = None  # the upload's receipt, once there is one
    failure: Attempt | None = None  # why there is no receipt
    announced: bool = False  # whether the outcome was announced (announce.py)
    recorded: bool = False  # whether Prefect shows the outcome
    is_closed: bool = False  # whether the message was deleted or returned
    is_duplicate: bool = False  # whether the receipt is from another message, whose task announces and records it
    memory_kills: int = 0  # how many tasks ran out of memory and were killed while they refined the upload

    @property
    def run_id(self) -> str:
        return self.upload.run_id

    @property
    def came_again(self) -> bool:
        """Return whether the message was delivered before."""
        return self.message.receive_count > 1

    @property
    def outcome(self) -> Receipt | Attempt | None:
        """Return the upload's receipt or, if Sluice has given up on it, its failed attempt; otherwise None."""
        return self.receipt or (self.failure if self.failure and self.failure.given_up else None)

    @property
    def is_settled(self) -> bool:
        """Return whether nothing is left to do for this delivery. This is also true for an upload without an outcome,
        because its next delivery tries it again."""
        return not self.outcome or (self.announced and self.recorded)

    def end(self, receipt: Receipt) -> None:
        """Set `receipt` as the outcome of this delivery.

        The task that wrote the receipt announces and records it, and holds its message until then. So if another
        message's receipt exists on the first delivery of this message, this message is a duplicate, and nothing is left
        to do.
        """
        chain = receipt.chain
        is_ours = (chain.message_id, chain.receive_count) == (self.message.message_id, self.message.receive_count)
        self.receipt = receipt
        self.is_duplicate = self.announced = not is_ours and not self.came_again
        self.recorded = self.is_duplicate or (is_ours and not self.came_again and receipt.observed)


def delivery_of(message: ReceivedMessage, parts: Parts) -> Delivery:
    """Return the delivery for a received message. Raise MessageUnreadable if the message does not describe an upload,
    and NoUpload if its object is not under the incoming prefix of the landing bucket."""
    upload, settings = UploadMessage.from_json(message.body), parts.settings
    if not settings.is_upload(upload.bucket, upload.key):
        raise NoUpload(f"s3://{upload.bucket}/{upload.key} is not under {settings.uploads_uri}")
    return Delivery(message, upload)


def process_delivery(delivery: Delivery, process: Process, parts: Parts, task: TaskIdentity) -> None:
    """Process the upload of one delivery, and set the delivery's receipt or failure. Errors are not raised; only
    exceptions that stop the process, such as Stopped, propagate."""
    started = time.monotonic()
    with log_context(run_id=delivery.run_id):
        _log(logging.INFO, "received", delivery, key=delivery.upload.key, attempt=delivery.upload.attempt)
        try:
            delivery.end(process(_job(delivery, task)))
        except ReceiptConflict as error:
            _end_by_other(delivery, error, parts, task)
        except SluiceError as error:
            fail(delivery, error, parts, task)
        except Exception as error:  # noqa: BLE001 (an unexpected error in one upload must not end the whole task)
            broke = StageBroke(f"{type(error).__name__} at {place_of(error.__traceback__)}")
            fail(delivery, broke, parts, task)
        if delivery.receipt:
            _log(
                logging.INFO,
                "done",
                delivery,
                dataset=delivery.receipt.contract.dataset,
                status=str(delivery.receipt.status),
                rows=delivery.receipt.rows.model_dump(),
                seconds=round(time.monotonic() - started, 3),
            )


def fail(
    delivery: Delivery, error: SluiceError, parts: Parts, task: TaskIdentity, *, give_up: bool | None = None
) -> None:
    """Set the failure of a delivery, and log it.

    Args:
        give_up: whether to give up on the upload. None means to do so only if this was its last allowed delivery, or if
            the error is UploadCancelled.
    """
    last = delivery.message.receive_count >= parts.settings.max_receive_count
    delivery.failure = Attempt.of(
        delivery.upload,
        error,
        dataset=dataset_of(delivery.upload, parts),
        receive_count=delivery.message.receive_count,
        task_arn=task.task_arn,
        given_up=last or isinstance(error, _GIVEN_UP_AT_ONCE) if give_up is None else give_up,
        memory_kills=delivery.memory_kills,
        message_id=delivery.message.message_id,
    )
    _log(
        logging.WARNING if isinstance(error, TransientError) else logging.ERROR,
        "given up" if delivery.failure.given_up else "not done, returning the message",
        delivery,
        error=f"{type(error).__name__}: {error}",
    )


def attempt_of(job: UploadJob, error: SluiceError, parts: Parts) -> Attempt:
    """Return the failed attempt for a job that has just failed with `error`, without giving up on the upload."""
    return Attempt.of(
        job.upload,
        error,
        dataset=job.contract.dataset if job.contract else dataset_of(job.upload, parts),
        receive_count=job.chain.receive_count or 1,
        task_arn=job.chain.task_arn,
    )


def dataset_of(upload: UploadMessage, parts: Parts) -> str:
    """Return the dataset whose contract matches an upload. If the contracts cannot be used, return the name of the
    upload's folder, or "default"."""
    with suppress(SluiceError):
        return parts.contracts.for_key(upload.key).dataset
    return folder_of(upload.key, parts.settings.incoming_prefix) or "default"


def has_limit(upload: UploadMessage, parts: Parts) -> bool:
    """Return whether the upload's dataset limits how many of its uploads are processed at the same time."""
    with suppress(SluiceError):
        return parts.contracts.for_key(upload.key).max_concurrent_uploads is not None
    return False


def _end_by_other(delivery: Delivery, conflict: ReceiptConflict, parts: Parts, task: TaskIdentity) -> None:
    """End a delivery for which another worker committed a different result, by using that worker's receipt."""
    _log(logging.ERROR, "receipt conflict", delivery, error=str(conflict))
    try:
        receipt = read_receipt(parts.store, delivery.run_id)
    except SluiceError as error:
        fail(delivery, error, parts, task)
        return
    if receipt is not None and is_done(receipt, delivery.upload.attempt):
        delivery.end(receipt)
    else:
        fail(delivery, conflict, parts, task)


def _job(delivery: Delivery, task: TaskIdentity) -> UploadJob:
    chain = Chain(
        message_id=delivery.message.message_id,
        receive_count=delivery.message.receive_count,
        execution_arn=task.execution_arn,
        task_arn=task.task_arn,
    )
    return UploadJob(delivery.upload, chain, log=task.log)


def _log(level: int, event: str, delivery: Delivery, **fields: Any) -> None:
    about = {"message_id": delivery.message.message_id, "receive_count": delivery.message.receive_count}
    LOG.log(level, event, extra={"fields": {**about, **fields}})
