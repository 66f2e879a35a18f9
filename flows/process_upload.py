"""The flow for one upload: a thin shell of tasks around the stages, so that Prefect shows each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType, TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import Task
from pydantic import Field

from blocks.aws_errors import AwsCallInvalid
from blocks.object_store import ObjectFacts
from flows.composition import Pipeline, TaskLog, pipeline, task_identity
from flows.observability.display import ProgressBar, rows_in, show_outcome, signs_of_life
from flows.observability.run_summary import Places, outcome_message, outcome_name
from flows.observability.upload_slot import upload_slot
from flows.pipeline.receipt import Chain, Output, Receipt, Status, receipt_key
from flows.pipeline.stages import REJECTING, UploadRun
from flows.refinery.check_contract import check_contract
from flows.refinery.contract.loading import ContractInvalid, overridden
from flows.refinery.contract.model import Contract
from flows.refinery.errors import FileRejected, TerminalError, TransientError
from flows.refinery.refine import JudgedFile, Refined
from flows.refinery.repair.corrections import Corrections
from lambda_trigger.message import UploadMessage, folder_of

_SECONDS_EDGE = 1_800  # 10 GiB, the default limit, at 6 MB/s
_SECONDS_CORE = 14_400  # nothing of that size takes nearly so long; what does is stuck


class ParametersWrong(TerminalError):
    """A run was started by hand with parameters that name nothing; the message says what to put right."""


@dataclass
class Assignment:
    """An upload that this process is to see through, and the receipt once there is one.

    Attributes:
        contract: judges the file instead of the contract that its key belongs to.
        corrections: what a repair puts into some of its rows.
        log: where the process writes its log, for the links in the UI.
        by_hand: whether a person started it.
    """

    pipeline: Pipeline
    upload: UploadMessage
    chain: Chain
    contract: Contract | None = None
    corrections: Corrections | None = None
    log: TaskLog | None = None
    by_hand: bool = False
    receipt: Receipt | None = None

    @property
    def places(self) -> Places:
        """Where a browser finds what this upload is made into."""
        settings, log = self.pipeline.settings, self.log
        return Places.of(
            settings.queue_url, settings.published_bucket, log.group if log else None, log.stream if log else None
        )

    @property
    def dataset(self) -> str:
        """The dataset, as far as the key and a person's wish say it: the contract is only found later."""
        if self.contract:
            return self.contract.dataset
        return folder_of(self.upload.key, self.pipeline.settings.incoming_prefix) or "default"

    @property
    def display_name(self) -> str:
        """What the flow run is called."""
        return display_name(self.upload.key, self.upload.run_id, self.pipeline.settings.incoming_prefix)


_ASSIGNMENT: ContextVar[Assignment | None] = ContextVar("assignment", default=None)


@contextmanager
def assigned(assignment: Assignment) -> Iterator[None]:
    """Let the flow that runs inside the block work on what the chain handed over: the message knows more about the
    upload than the flow's parameters say."""
    token = _ASSIGNMENT.set(assignment)
    try:
        yield
    finally:
        _ASSIGNMENT.reset(token)


def display_name(upload_key: str, run_id: str | None, incoming_prefix: str = "incoming/") -> str:
    """Return the name of a flow run: folder, file and the first characters of the run id."""
    parts = [folder_of(upload_key, incoming_prefix) or "default", PurePosixPath(upload_key).name]
    return " ".join([" / ".join(parts), *([run_id[:8]] if run_id else [])])


def _flow_run_name() -> str:
    assignment = _ASSIGNMENT.get()
    if assignment:
        return assignment.display_name
    return display_name(str(runtime.flow_run.parameters.get("key", "")), None)


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State) -> bool:
    """Retry a task only for what may pass: a rejected file would be rejected again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransientError)


# Results stay in memory: a stage's result is a path on this machine, worth nothing to another one.
_ANY: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
_EDGE: dict[str, Any] = _ANY | {
    "timeout_seconds": _SECONDS_EDGE,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _may_pass,
}
_CORE: dict[str, Any] = _ANY | {"timeout_seconds": _SECONDS_CORE}  # pure: it would fail the same way again


@task(name="fetch", task_run_name="fetch", description="Read the object version from S3, find its contract.", **_EDGE)
def _fetch(run: UploadRun, progress: ProgressBar) -> ObjectFacts:
    facts = run.fetch()
    progress.dataset, progress.rows_expected = run.contract.dataset, rows_in(run.source)
    default = " (no contract matches the key)" if run.contract.is_default else ""
    get_run_logger().info(
        "Read %s bytes. The contract is %s%s, with %s columns, %s expectations and %s preprocessing steps.",
        f"{facts.size_bytes:,}",
        run.contract.dataset,
        default,
        len(run.contract.columns),
        len(run.contract.expectations),
        len(run.contract.preprocess),
    )
    if run.rows_corrected:
        get_run_logger().info("%s rows are as repairs corrected them.", f"{run.rows_corrected:,}")
    return facts


@task(
    name="validate", task_run_name="validate", description="Decode, judge every row with Great Expectations.", **_CORE
)
def _validate(run: UploadRun, progress: ProgressBar) -> JudgedFile:
    validated = run.validate()
    good = progress.rows_expected = validated.good.rows if validated.good else 0
    log = get_run_logger()
    failed = [check for check in validated.checks if not check.success]
    for check in failed:
        rows = "" if check.rows_failing is None else f": {check.rows_failing:,} of {check.rows_evaluated or 0:,} rows"
        log.warning("Failed: %s%s", check.rule, rows)
    bad = sum(validated.quarantined.values())
    parted = "the file is rejected" if validated.rejected else f"{good:,} good, {bad:,} to quarantine"
    passed = len(validated.checks) - len(failed)
    log.info("%s rows: %s. %s of %s checks passed.", f"{validated.rows_in:,}", parted, passed, len(validated.checks))
    return validated


@task(name="refine", task_run_name="refine", description="Preprocess the good rows with pandas.", **_CORE)
def _refine(run: UploadRun) -> Refined:
    prepared = run.refine()
    get_run_logger().info(
        "Preprocessed: %s rows to publish, %s dropped%s.",
        f"{prepared.rows_published:,}",
        f"{sum(prepared.dropped.values()):,}",
        f" ({', '.join(f'{rows:,} by {step}' for step, rows in prepared.dropped.items())})" if prepared.dropped else "",
    )
    return prepared


@task(name="publish", task_run_name="publish", description="Write the outputs under keys of this run.", **_EDGE)
def _publish(run: UploadRun) -> tuple[Output, ...]:
    outputs = run.publish()
    for output in outputs:
        get_run_logger().info("Wrote %s (%s rows, %s bytes).", output.key, f"{output.rows:,}", f"{output.size_bytes:,}")
    return outputs


@task(name="record", task_run_name="record", description="Commit the receipt: now the result counts.", **_EDGE)
def _record(run: UploadRun, rejection: TerminalError | None = None) -> Receipt:
    receipt = run.reject(rejection) if rejection else run.record()
    get_run_logger().info("The receipt is %s: %s.", receipt_key(receipt.run_id), receipt.status)
    return receipt


@flow(
    name="process-upload",
    description="Read one uploaded file, validate it, quarantine bad rows, preprocess the rest, publish it.",
    flow_run_name=_flow_run_name,
    persist_result=False,
)
def process_upload(
    key: Annotated[str, Field(min_length=1)],
    bucket: str = "",
    version_id: str = "",
    dataset: str = "",
    force: bool = False,
    dry_run: bool = False,
    contract: dict[str, Any] = {},  # noqa: B006 (only read; with None, Prefect's form asks for the type first)
) -> State[Any]:
    """Turn one uploaded object version into published data with a receipt.

    Prefect's form for a custom run shows these texts.

    Args:
        key: The object's key, as incoming/orders/monday.csv, or its whole s3:// URI.
        bucket: Its bucket; empty: the landing bucket.
        version_id: The object version; empty: the newest one.
        dataset: Judge by this dataset's contract; empty: by the one that the key belongs to.
        force: Process it again although it has a receipt; the new receipt replaces the old one.
        dry_run: Validate and preprocess, but write nothing.
        contract: Fields of the contract to change for this run, as {"bad_rows": {"max_fraction": 0.5}}.
    """
    try:
        assignment = _ASSIGNMENT.get() or _assignment_by_hand(
            key, bucket, version_id or None, dataset=dataset, changes=contract, force=force
        )
    except ParametersWrong as error:
        return Failed(name="Wrong parameters", message=str(error))
    flow_run_id = str(runtime.flow_run.id) if runtime.flow_run.id else None
    chain = assignment.chain.model_copy(update={"flow_run_id": flow_run_id})
    progress = ProgressBar()
    with (
        signs_of_life(),
        upload_slot(_limit_of(assignment)),
        UploadRun(
            assignment.pipeline,
            assignment.upload,
            contract=assignment.contract,
            chain=chain,
            on_progress=progress.moved,
            corrections=assignment.corrections,
        ) as run,
    ):
        return _see_through(run, assignment, progress, dry_run=dry_run)


def _limit_of(assignment: Assignment) -> str | None:
    """Return the concurrency limit that the upload's contract sets. A stage reports what is wrong with a contract."""
    with suppress(ContractInvalid):
        contract = assignment.contract or assignment.pipeline.contracts.for_key(assignment.upload.key)
        if contract.max_concurrent_uploads:
            return assignment.pipeline.settings.prefect_names.limit(contract.dataset)
    return None


def _see_through(run: UploadRun, assignment: Assignment, progress: ProgressBar, *, dry_run: bool) -> State[Any]:
    """Take the upload from where it is to its end; return what the flow run ends as."""
    log, upload = get_run_logger(), assignment.upload
    again = f", once more (attempt {upload.attempt})" if upload.attempt else ""
    log.info("The file is s3://%s/%s (%s bytes)%s.", upload.bucket, upload.key, f"{upload.size_bytes:,}", again)
    existing = run.find_receipt()
    if existing and not dry_run:
        run.settle(existing)
        assignment.receipt = existing
        log.info("This object version has a receipt already (attempt %s): nothing is left to do.", existing.attempt)
        return final_state(existing)
    rejection = _work(run, progress, dry_run=dry_run)
    by_hand = [*(["by-hand"] if assignment.by_hand else []), *(["repair"] if assignment.corrections else [])]
    if dry_run:
        preview = run.preview(rejection)
        show_outcome(preview, assignment.places, "dry-run", *by_hand, name=assignment.display_name, dry_run=True)
        return _dry_run_state(preview)
    receipt = assignment.receipt = _record(run, rejection)
    progress.done()
    name = assignment.display_name if assignment.by_hand else None
    show_outcome(receipt, assignment.places, *by_hand, name=name)
    log.info("%s: %s.", outcome_name(receipt), outcome_message(receipt))
    return final_state(receipt)


def _work(run: UploadRun, progress: ProgressBar, *, dry_run: bool) -> TerminalError | None:
    """Do the stages before the commit; return why the file cannot be published, if a stage said so."""
    try:
        _fetch(run, progress)
        if not _validate(run, progress).rejected:
            _refine(run)
            if not dry_run:
                _publish(run)
    except REJECTING as error:
        get_run_logger().warning("The file cannot be published: %s.", error)
        return error
    return None


def _assignment_by_hand(
    key: str,
    bucket: str,
    version_id: str | None,
    *,
    dataset: str,
    changes: dict[str, Any],
    force: bool,
) -> Assignment:
    """Find out what an S3 event would have told, for a run that somebody started by hand."""
    parts = pipeline()
    if key.startswith("s3://"):
        bucket, _, key = key.removeprefix("s3://").partition("/")
    bucket = bucket or parts.settings.landing_bucket
    contract = _contract_by_hand(parts, key, dataset, changes)
    try:
        facts = parts.store.facts(bucket, key, version_id)
    except (FileRejected, AwsCallInvalid) as error:  # S3 refuses an id that no version can have
        raise ParametersWrong(
            f"{error}. Look for the right bucket, key and version with: "
            f"aws s3api list-object-versions --bucket {bucket} --prefix {key!r}"
        ) from None
    upload = UploadMessage(
        bucket=bucket, key=key, version_id=facts.version_id, etag=facts.etag, size_bytes=facts.size_bytes
    )
    existing = parts.store.receipt(upload.run_id)
    if existing and (force or _is_retry_of(existing)):
        # S3's listing does not tell the sequencer: without the event's, versions of one second could change places.
        upload = replace(upload, attempt=existing.attempt + 1, sequencer=existing.source.sequencer)
    task = task_identity()  # one of the stack's, when a worker of type ecs started this run
    return Assignment(parts, upload, Chain(task_arn=task.task_arn), contract=contract, log=task.log, by_hand=True)


def _contract_by_hand(parts: Pipeline, key: str, dataset: str, changes: dict[str, Any]) -> Contract | None:
    """Return the contract that the parameters ask for; None when that is the one that the key belongs to."""
    try:
        contract = parts.contracts.named(dataset) if dataset else parts.contracts.for_key(key)
        if not changes:
            return contract if dataset else None
        changed = overridden(contract, changes)
        check_contract(changed)
        return changed
    except ContractInvalid as error:
        raise ParametersWrong(str(error)) from None


def _is_retry_of(receipt: Receipt) -> bool:
    """Whether this flow run wrote that receipt itself, came to its end, and was then started again with Retry: a person
    who presses Retry on a finished run means that it be done again."""
    run_id = str(runtime.flow_run.id)
    if (runtime.flow_run.run_count or 1) < 2 or receipt.chain.flow_run_id != run_id:
        return False
    # The chain may have come first with a delivery of its own, after Retry was pressed on a run that had crashed.
    return _asked_again_at(run_id) > datetime.fromisoformat(receipt.created_at)


def _asked_again_at(run_id: str) -> datetime:
    """When Retry was pressed; long ago where it never was, and a task merely took the run over."""
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(run_id))
    asked = [state.timestamp for state in states if state.type is StateType.SCHEDULED]
    return max(asked, default=datetime.min.replace(tzinfo=UTC))


def final_state(receipt: Receipt) -> State[Any]:
    """A rejected file is a failure of the file, named so: a broken pipeline is merely "Failed" or "Crashed"."""
    kind = Failed if receipt.status is Status.REJECTED else Completed
    return kind(name=outcome_name(receipt), message=outcome_message(receipt))


def _dry_run_state(preview: Receipt) -> State[Any]:
    if preview.status is Status.REJECTED:
        return Failed(name="Would be rejected", message=preview.reason)
    return Completed(name="Dry run", message=f"nothing was written; it would be: {outcome_message(preview)}")
