"""Reports the outcomes of runs that a person starts, as a task does for uploads from the queue: a receipt is announced,
and an error is stored as a failed attempt."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from flows.pipeline.announce import notice_of
from flows.pipeline.attempts import AttemptUnreadable, read_attempt, remove_attempt, write_attempt
from flows.pipeline.batch_notes import BatchNote, NotedUpload, write_note
from flows.pipeline.closing import Announce
from flows.pipeline.delivery import attempt_of
from flows.pipeline.errors import RepairRejected, UploadCancelled
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.protocol import ReceiptConflict
from flows.pipeline.receipt import Receipt
from flows.refinery.errors import SluiceError

LOG = logging.getLogger("sluice")
_NOTHING_FAILED = (RepairRejected, ReceiptConflict, UploadCancelled)  # these do not count as failed attempts


def reported(parts: Parts, job: UploadJob, run: Callable[[], Receipt], announce: Announce) -> Receipt:
    """Process an upload by calling `run`, and return its receipt. Announce a new outcome or, if `run` raises an error
    that counts as a failure, store the failed attempt; do neither for a dry run. Raise whatever `run` raises."""
    if job.dry_run:
        return run()
    try:
        receipt = run()
    except SluiceError as error:
        if not isinstance(error, _NOTHING_FAILED):
            _try(partial(_write_failure, parts, job, error))
        raise
    if receipt.attempt == job.upload.attempt:  # otherwise a later attempt already had a receipt: nothing was done
        _try(lambda: remove_attempt(parts.store, receipt.run_id))
        if not announce([notice_of(receipt, parts.settings)]):
            _try(lambda: _leave_note(parts, job))
    return receipt


def _write_failure(parts: Parts, job: UploadJob, error: SluiceError) -> None:
    """Store the failed attempt. It is given up if no message leads to another try: this is a re-run or a repair, or
    Sluice had given up on the upload before."""
    attempt, before = attempt_of(job, error, parts), None
    with suppress(AttemptUnreadable):
        before = read_attempt(parts.store, attempt.run_id)
    if before and before.given_up:
        attempt = attempt.model_copy(update={"given_up": True, "message_id": before.message_id})
    elif job.upload.attempt:
        attempt = attempt.model_copy(update={"given_up": True})
    write_attempt(parts.store, attempt)


def _leave_note(parts: Parts, job: UploadJob) -> None:
    """Write a batch note, so that a task announces the outcome later."""
    noted = NotedUpload(upload=job.upload, message_id="", recorded=True)
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    note = BatchNote(task=f"by-hand-{uuid4().hex}", number=1, task_arn=job.chain.task_arn, uploads=(noted,), at=at)
    write_note(parts.store, note)


def _try(do: Callable[[], None]) -> None:
    try:
        do()
    except SluiceError as error:
        LOG.warning("outcome not reported", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
