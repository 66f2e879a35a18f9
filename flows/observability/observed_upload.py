"""Processes one upload inside a flow run, with its stages as Prefect tasks, and shows its progress and outcome."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from prefect import get_run_logger, runtime
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events import Event
from prefect.states import Completed, Failed
from prefect.tasks import Task

from flows.observability.cancellation import Cancellation
from flows.observability.crashes import infrastructure_of
from flows.observability.display import ProgressBar, rows_in, show_outcome
from flows.observability.heartbeats import heartbeat
from flows.observability.outcome_events import ATTEMPT_FAILED, emit_outcome, outcome_event
from flows.observability.run_identity import run_name
from flows.observability.run_summary import ConsoleLinks, failed_checks, outcome_message, outcome_name, state_message
from flows.observability.upload_slot import upload_slot
from flows.pipeline.announce import notice_of
from flows.pipeline.delivery import attempt_of
from flows.pipeline.errors import UploadCancelled
from flows.pipeline.job import Fetched, Parts, Published, UploadJob
from flows.pipeline.receipt import Receipt, Status, receipt_key
from flows.pipeline.run import RunUpload, run_upload
from flows.refinery.errors import SluiceError, TransientError
from flows.refinery.refine import REJECTING, Refined

_SECONDS_EDGE = 1_800  # enough for 10 GiB, the default limit, at 6 MB/s
_SECONDS_CORE = 14_400  # far more than refining an upload of that size takes


def run_observed(
    parts: Parts, job: UploadJob, run: RunUpload = run_upload, cancellation: Cancellation | None = None
) -> Receipt:
    """Process one upload inside the current flow run, show it there, and return its receipt.

    Args:
        cancellation: stops the upload if a person cancels the flow run; None if Prefect does that itself.

    Raises:
        UploadCancelled: a person cancelled the flow run; nothing was committed.
        TransientError: the upload is not finished; it can be tried again, even if its receipt was committed.
        TerminalError: the upload would fail again in the same way.
    """
    log, upload, progress = get_run_logger(), job.upload, ProgressBar()
    again = f", again (attempt {upload.attempt})" if upload.attempt else ""
    log.info("The file is s3://%s/%s (%s bytes)%s.", upload.bucket, upload.key, f"{upload.size_bytes:,}", again)
    calls, settings = TaskCalls(progress, cancellation), parts.settings
    flow_run_id = str(runtime.flow_run.id) if runtime.flow_run.id else None
    chain = job.chain.model_copy(update={"flow_run_id": flow_run_id})
    on_cancelled = cancellation.ask if cancellation else None
    with _failure_event(parts, job), heartbeat(settings.stack, on_cancelled), upload_slot(limit_of(parts, job)):
        receipt = run(parts, replace(job, chain=chain), calls, progress.moved)
        if not calls.made:
            log.info("This object version already has a receipt (attempt %s): nothing is left to do.", receipt.attempt)
            return receipt
        progress.done()
        name = run_name(upload.key, upload.run_id, settings.incoming_prefix) if job.by_hand else None
        links = ConsoleLinks.of(settings.queue_url, settings.published_bucket, job.log)
        tags = {"dry-run": job.dry_run, "by-hand": job.by_hand, "repair": job.corrections is not None}
        applying = [tag for tag, applies in tags.items() if applies]
        task = infrastructure_of(job.chain.task_arn) if job.chain.task_arn else None
        show_outcome(receipt, links, *applying, name=name, task=task, dry_run=job.dry_run)
        if not job.dry_run:
            emit_outcome(outcome_event(notice_of(receipt, settings), settings.stack, flow_run_id))
        log.info("%s: %s.", outcome_name(receipt), outcome_message(receipt))
        return receipt


def _failed_event(parts: Parts, job: UploadJob, error: SluiceError) -> Event:
    attempt = attempt_of(job, error, parts)
    notice, stack = notice_of(attempt, parts.settings), parts.settings.stack
    return outcome_event(notice, stack, runtime.flow_run.id, what=ATTEMPT_FAILED, at=attempt.at)


@contextmanager
def _failure_event(parts: Parts, job: UploadJob) -> Iterator[None]:
    """Emit the event for a failed attempt if the block raises a SluiceError, except for dry runs and cancellations."""
    try:
        yield
    except UploadCancelled:
        raise
    except SluiceError as error:
        if not job.dry_run:
            emit_outcome(_failed_event(parts, job, error))
        raise


def final_state(receipt: Receipt, *, dry_run: bool = False) -> State[Any]:
    """Return the flow run's final state: Completed for a published file, Failed for a rejected one, because Prefect's
    pages can filter only by Prefect's own states. The tag `rejected` distinguishes a rejected file from a failure of
    the pipeline, whose run is Failed too."""
    kind = Failed if receipt.status is Status.REJECTED else Completed
    return kind(message=state_message(receipt, dry_run=dry_run))


def limit_of(parts: Parts, job: UploadJob) -> str | None:
    """Return the name of the concurrency limit for the upload's dataset, or None if its contract sets none. Also return
    None if the contract is invalid, because the run reports that later."""
    with suppress(SluiceError):
        contract = job.contract or parts.contracts.for_key(job.upload.key)
        if contract.max_concurrent_uploads:
            return parts.settings.prefect_names.limit(contract.dataset)
    return None


# --- stages as tasks --------------------------------------------------------------------------------------------------


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State) -> bool:
    """Return whether a failed task may be retried. Only transient errors are retried, because a rejected file would be
    rejected again."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


# Results stay in memory: a stage returns paths on this machine, which are useless on another one.
_ANY: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
_EDGE: dict[str, Any] = _ANY | {
    "timeout_seconds": _SECONDS_EDGE,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _may_pass,
}
_CORE: dict[str, Any] = _ANY | {"timeout_seconds": _SECONDS_CORE}  # pure: it would fail the same way again
_OPTIONS: dict[str, dict[str, Any]] = {
    "fetch": _EDGE | {"description": "Read the object version from S3."},
    "refine": _CORE | {"description": "Read, validate with Great Expectations, preprocess with pandas, and write."},
    "publish": _EDGE | {"description": "Upload the outputs under keys of this run."},
    "record": _EDGE | {"description": "Commit the receipt, which makes the result valid."},
}


class TaskCalls:
    """Calls each stage as a Prefect task with the same name, and logs its result.

    Attributes:
        made: the names of the stages that were called.
    """

    def __init__(self, progress: ProgressBar, cancellation: Cancellation | None = None) -> None:
        self.made: list[str] = []
        self._progress = progress
        self._cancellation = cancellation

    def __call__(self, stage: Callable[..., Any], *values: Any) -> Any:
        name = stage.__name__
        self.made.append(name)

        @functools.wraps(stage)
        def logged(*values: Any) -> Any:
            with self._stops(name):
                result = stage(*values)
            self._log(result)
            return result

        try:
            return Task(fn=logged, name=name, task_run_name=name, **_OPTIONS[name])(*values)
        except REJECTING as error:
            get_run_logger().warning("The file cannot be published: %s.", error)
            raise

    def _stops(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager in which a cancellation in Prefect stops the stage. The record stage is never
        stopped."""
        return self._cancellation.stops() if self._cancellation and name != "record" else nullcontext()

    def _log(self, result: Any) -> None:
        if isinstance(result, Fetched):
            self._progress.expect(result.contract.dataset, rows_in(result.source))
            _log_fetched(result)
        elif isinstance(result, Refined):
            _log_refined(result)
        elif isinstance(result, Published):
            for output in result.outputs:
                size = f"{output.size_bytes:,}"
                get_run_logger().info("Wrote %s (%s rows, %s bytes).", output.key, f"{output.rows:,}", size)
        elif isinstance(result, Receipt):
            get_run_logger().info("The receipt is %s: %s.", receipt_key(result.run_id), result.status)


def _log_fetched(fetched: Fetched) -> None:
    log, contract = get_run_logger(), fetched.contract
    log.info(
        "Read %s bytes. The contract is %s%s, with %s columns, %s expectations and %s preprocessing steps.",
        f"{fetched.facts.size_bytes:,}",
        contract.dataset,
        " (no contract matches the key)" if contract.is_default else "",
        len(contract.columns),
        len(contract.expectations),
        len(contract.preprocess),
    )
    if fetched.corrections:
        log.info("Repairs corrected or dropped %s rows.", f"{len(fetched.corrections.rows):,}")


def _log_refined(refined: Refined) -> None:
    log = get_run_logger()
    failed = failed_checks(refined.checks)
    for line in failed:
        log.warning("%s", line)
    bad = sum(refined.quarantined.values())
    verdict = "the file is rejected" if refined.rejected else f"{refined.rows_in - bad:,} good, {bad:,} to quarantine"
    passed = len(refined.checks) - len(failed)
    log.info("%s rows: %s. %s of %s checks passed.", f"{refined.rows_in:,}", verdict, passed, len(refined.checks))
    if refined.rejected:
        return
    dropped = sum(refined.dropped.values())
    steps = f" ({', '.join(f'{rows:,} by {step}' for step, rows in refined.dropped.items())})" if dropped else ""
    published = f"{refined.rows_published:,}"
    log.info("Preprocessed: %s rows to publish, %s dropped%s.", published, f"{dropped:,}", steps)
