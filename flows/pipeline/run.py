"""Processes one upload in four stages: fetch, refine, publish and record.

The order is the same for uploads from the queue, manual runs and repairs, with and without Prefect. They differ only in
the job, and in how a stage is called. A dry run ends after the refine stage.
"""

import functools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from flows.pipeline.attempts import read_attempt
from flows.pipeline.commit import read_receipt, settle, without_corrections
from flows.pipeline.early_uploads import EarlyUploads
from flows.pipeline.errors import ContractUnusable, OutOfMemory, StageBroke, StageTookTooLong, TakesTooLong
from flows.pipeline.job import Outcome, Parts, UploadJob
from flows.pipeline.json_log import log_context, place_of
from flows.pipeline.protocol import is_done
from flows.pipeline.receipt import Receipt, output_key
from flows.pipeline.stages import fetch, publish, receipt_of, record, refine
from flows.pipeline.time_limit import TimeIsUp, time_limit
from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.contract.model import Contract
from flows.refinery.errors import SluiceError
from flows.refinery.output_files import OutputFile
from flows.refinery.refine import REJECTING, Progress

LOG = logging.getLogger("sluice")

P = ParamSpec("P")
T = TypeVar("T")
Call = Callable[..., Any]
"""A function that calls a stage, given the stage's function, which has the name of the stage, and its arguments."""


def plainly(stage: Callable[P, T], *values: P.args, **more: P.kwargs) -> T:
    """Call a stage directly, without Prefect."""
    return stage(*values, **more)


def run_upload(
    parts: Parts,
    job: UploadJob,
    call: Call = plainly,
    on_progress: Progress | None = None,
) -> Receipt:
    """Process one upload and return its receipt. If this attempt or a later one already has a receipt, return that
    receipt or, for a repair, raise ReceiptConflict. For a dry run, return the receipt that the upload would get.

    Args:
        call: calls a stage, directly or as a Prefect task.
        on_progress: called with the name of a part of the refine stage and the number of rows it has processed so far.

    Raises:
        TransientError: the upload is not finished; it can be tried again, even if its receipt was committed.
        TerminalError: the upload would fail again in the same way.
    """
    earlier = read_receipt(parts.store, job.upload.run_id)
    if earlier and is_done(earlier, job.upload.attempt) and not job.dry_run:
        if job.corrections:
            raise without_corrections(job.upload.run_id)
        settle(parts, job, job.contract, earlier)
        return earlier
    contract = _contract_of(parts, job)
    do = _StageRunner(parts, job, call)
    fetched = refined = published = rejection = None
    with (
        log_context(run_id=job.upload.run_id, dataset=contract.dataset),
        tempfile.TemporaryDirectory(prefix="sluice-") as folder,
        _early_uploads(parts, job, contract) as early,
    ):
        try:
            fetched = do(fetch, parts, job, contract, earlier, Path(folder))
            refined = do(refine, fetched, on_progress, early)
            if not refined.rejected and not job.dry_run:
                published = do(publish, parts, job, fetched, refined, early)
        except REJECTING as error:
            rejection = error
        outcome = Outcome(contract, earlier, fetched, refined, published, rejection, do.seconds)
        return receipt_of(job, outcome) if job.dry_run else do(record, parts, job, outcome)


def _early_uploads(parts: Parts, job: UploadJob, contract: Contract) -> EarlyUploads:
    def key_of(kind: str, file: OutputFile) -> str:
        return output_key(kind, contract, job.upload, parts.settings.incoming_prefix, file)

    return EarlyUploads(None if job.dry_run else parts.store, key_of)


def _contract_of(parts: Parts, job: UploadJob) -> Contract:
    try:
        return job.contract or parts.contracts.for_key(job.upload.key)
    except ContractInvalid as error:
        raise _unusable(error) from None


def _unusable(error: ContractInvalid) -> ContractUnusable:
    return ContractUnusable(
        f"{error}\nThe file is not rejected. Publish a correct contract (sluice contract publish), "
        "roll back to the previous one (sluice contract rollback), or deploy; then run sluice redrive"
    )


RunUpload = Callable[..., Receipt]
"""A function with the parameters of `run_upload`."""


class _StageRunner:
    """Calls the stages of one upload, enforces their time limits, translates their exceptions, and logs how long they
    took."""

    def __init__(self, parts: Parts, job: UploadJob, call: Call) -> None:
        self._parts, self._job, self._call = parts, job, call
        self._limits = {"refine": parts.settings.stage_timeout_seconds}
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: Callable[P, T], *values: P.args, **more: P.kwargs) -> T:
        @functools.wraps(stage)
        def guarded(*values: P.args, **more: P.kwargs) -> T:
            with self._guard(stage.__name__, self._limits.get(stage.__name__)):
                return stage(*values, **more)

        result: T = self._call(guarded, *values, **more)
        return result

    @contextmanager
    def _guard(self, name: str, limit_seconds: float | None) -> Iterator[None]:
        started = time.monotonic()
        failed: dict[str, str] = {}
        try:
            with log_context(stage=name), time_limit(limit_seconds):
                yield
        except BaseException as error:
            failed = {"error": type(error).__name__}
            meaning = _translated(error, name, self._parts, self._job, limit_seconds)
            if meaning is error:
                raise
            raise meaning from None
        finally:
            self.seconds[name] = time.monotonic() - started
            fields = {"stage": name, "seconds": round(self.seconds[name], 3), **failed}
            LOG.info("stage failed" if failed else "stage done", extra={"fields": fields})


def _translated(
    error: BaseException, stage: str, parts: Parts, job: UploadJob, limit_seconds: float | None
) -> BaseException:
    """Return the error to raise for an exception that a stage raised. An unexpected exception becomes a StageBroke,
    which quotes no data."""
    if isinstance(error, TimeIsUp):
        return _too_long(stage, parts, job, limit_seconds or 0)
    if isinstance(error, MemoryError):
        return OutOfMemory(
            f"the {stage} stage ran out of memory ({_place_of(error)}). A custom step that is marked with @whole_table "
            "gets all rows at once; give the task more memory (the stack's parameter TaskMemory) and redrive the "
            "dead-letter queue"
        )
    if isinstance(error, ContractInvalid):
        return _unusable(error)
    if isinstance(error, SluiceError) or not isinstance(error, Exception):
        return error
    return StageBroke(f"stage {stage}: {_place_of(error)}")


def _too_long(stage: str, parts: Parts, job: UploadJob, limit_seconds: float) -> SluiceError:
    took = f"the {stage} stage was not finished after {limit_seconds:,.0f} s (SLUICE_STAGE_TIMEOUT_SECONDS)"
    if job.by_hand:
        return StageTookTooLong(f"{took}; nothing was published. Start it again, or give the task more time and CPU")
    before = read_attempt(parts.store, job.upload.run_id)
    # The message may have been delivered before for other reasons: a task was stopped, or S3 was unavailable.
    if before is None or (before.code, before.upload.attempt) != (StageTookTooLong.code, job.upload.attempt):
        return StageTookTooLong(f"{took}; trying again")
    return TakesTooLong(
        f"{took}, for the second time. Either a custom step never ends, or the file is too large for the task: fix "
        "the step, or give the task more time and CPU, and upload the file again"
    )


def _place_of(error: Exception) -> str:
    """Return the type and location of an exception, but not its text, because pandas quotes values in its messages."""
    return f"{type(error).__name__} at {place_of(error.__traceback__)}"
