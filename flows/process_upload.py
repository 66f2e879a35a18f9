"""The flow for one upload: a thin shell of tasks around the stages, so that Prefect shows each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated, Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import Task
from pydantic import Field

from blocks.object_store import ObjectFacts
from flows.composition import Pipeline, pipeline
from flows.refinery.errors import TerminalError, TransientError
from flows.refinery.preprocess import Prepared
from flows.refinery.receipt import Chain, Output, Receipt, Status, receipt_key
from flows.refinery.refine import Validated
from flows.stages import REJECTING, UploadRun
from lambda_trigger.message import UploadMessage, folder_of, slug


@dataclass
class Assignment:
    """An upload that the chain handed to this process, and the receipt once there is one."""

    pipeline: Pipeline
    upload: UploadMessage
    chain: Chain
    receipt: Receipt | None = None


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
        prefix = assignment.pipeline.settings.incoming_prefix
        return display_name(assignment.upload.key, assignment.upload.run_id, prefix)
    return display_name(str(runtime.flow_run.parameters.get("key", "")), None)


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State) -> bool:
    """Retry a task only for what may pass: a rejected file would be rejected again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransientError)


# Results stay in memory: a stage's result is a path on this machine, worth nothing to another one.
_EDGE: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _may_pass,
}
_CORE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}  # pure: it would fail the same way again


@task(name="fetch", description="Read the object version from S3 and find its contract.", **_EDGE)
def _fetch(run: UploadRun) -> ObjectFacts:
    facts = run.fetch()
    default = " (no contract matches the key: the default one)" if run.contract.is_default else ""
    get_run_logger().info("read %s bytes; contract: %s%s", f"{facts.size_bytes:,}", run.contract.dataset, default)
    return facts


@task(name="validate", description="Decode the file, judge every row with Great Expectations.", **_CORE)
def _validate(run: UploadRun) -> Validated:
    validated = run.validate()
    failed = sum(not tally.success for tally in validated.tallies)
    get_run_logger().info(
        "%s rows: %s good, %s in quarantine; %s of %s checks failed",
        f"{validated.rows_in:,}",
        f"{validated.rows_good:,}",
        f"{sum(validated.quarantined.values()):,}",
        failed,
        len(validated.tallies),
    )
    return validated


@task(name="refine", description="Preprocess the good rows with pandas.", **_CORE)
def _refine(run: UploadRun) -> Prepared:
    prepared = run.refine()
    get_run_logger().info(
        "%s rows to publish, %s dropped (%s)",
        f"{prepared.rows_published:,}",
        f"{sum(prepared.dropped.values()):,}",
        ", ".join(f"{step}: {rows:,}" for step, rows in prepared.dropped.items()) or "by no step",
    )
    return prepared


@task(name="publish", description="Write the outputs under keys of this run.", **_EDGE)
def _publish(run: UploadRun) -> tuple[Output, ...]:
    outputs = run.publish()
    for output in outputs:
        get_run_logger().info("wrote %s (%s rows, %s bytes)", output.key, f"{output.rows:,}", f"{output.size_bytes:,}")
    return outputs


@task(name="record", description="Commit the receipt: from here on the result counts.", **_EDGE)
def _record(run: UploadRun, rejection: TerminalError | None = None) -> Receipt:
    receipt = run.reject(rejection) if rejection else run.record()
    get_run_logger().info("receipt %s says %s", receipt_key(receipt.run_id), receipt.status)
    return receipt


@flow(
    name="process-upload",
    description="Read one uploaded file, validate it, quarantine bad rows, preprocess the rest, publish it.",
    flow_run_name=_flow_run_name,
    persist_result=False,
)
def process_upload(
    key: Annotated[str, Field(description="The object's key, as incoming/orders/monday.csv.", min_length=1)],
    bucket: Annotated[str | None, Field(description="Its bucket; empty: the landing bucket.")] = None,
    version_id: Annotated[str | None, Field(description="The object version; empty: the newest one.")] = None,
    dataset: Annotated[
        str | None, Field(description="Judge by this dataset's contract instead of the one that the key belongs to.")
    ] = None,
    force: Annotated[
        bool, Field(description="Process it again although it has a receipt; the new receipt replaces the old one.")
    ] = False,
    dry_run: Annotated[bool, Field(description="Validate and preprocess, but write nothing.")] = False,
) -> State[Any]:
    """Turn one uploaded object version into published data with a receipt."""
    assignment = _ASSIGNMENT.get() or _assignment_by_hand(key, bucket, version_id, force=force)
    flow_run_id = str(runtime.flow_run.id) if runtime.flow_run.id else None
    chain = assignment.chain.model_copy(update={"flow_run_id": flow_run_id})
    with UploadRun(assignment.pipeline, assignment.upload, dataset=dataset, chain=chain) as run:
        existing = run.find_receipt()
        if existing and not dry_run:
            run.settle(existing)
            assignment.receipt = existing
            get_run_logger().info("this object version has a receipt already (attempt %s)", existing.attempt)
            return _final_state(existing)
        rejection = _work(run, dry_run=dry_run)
        if dry_run:
            return _dry_run_state(run, rejection)
        receipt = assignment.receipt = _record(run, rejection)
    _tell(receipt)
    return _final_state(receipt)


def _work(run: UploadRun, *, dry_run: bool) -> TerminalError | None:
    """Do the stages before the commit; return why the file cannot be published, if a stage said so."""
    try:
        _fetch(run)
        if not _validate(run).rejected:
            _refine(run)
            if not dry_run:
                _publish(run)
    except REJECTING as error:
        get_run_logger().warning("%s", error)
        return error
    return None


def _assignment_by_hand(key: str, bucket: str | None, version_id: str | None, *, force: bool) -> Assignment:
    """Find out what an S3 event would have told, for a run that somebody started by hand."""
    parts = pipeline()
    bucket = bucket or parts.settings.landing_bucket
    facts = parts.store.facts(bucket, key, version_id)
    upload = UploadMessage(
        bucket=bucket, key=key, version_id=facts.version_id, etag=facts.etag, size_bytes=facts.size_bytes
    )
    if force:
        existing = parts.store.receipt(upload.run_id)
        upload = replace(upload, attempt=existing.attempt + 1 if existing else 0)
    return Assignment(parts, upload, Chain())


def _final_state(receipt: Receipt) -> State[Any]:
    """A rejected file is a failure of the file, named so: a broken pipeline is merely "Failed" or "Crashed"."""
    if receipt.status is Status.REJECTED:
        return Failed(name="Rejected", message=receipt.reason)
    rows = receipt.rows
    parts = [f"{rows.published:,} rows published"]
    if rows.quarantined_total:
        parts.append(f"{rows.quarantined_total:,} quarantined")
    if rows.dropped_total:
        parts.append(f"{rows.dropped_total:,} dropped")
    return Completed(name="Published", message=", ".join(parts))


def _dry_run_state(run: UploadRun, rejection: TerminalError | None) -> State[Any]:
    reasons = [str(rejection)] if rejection else [reason.message for reason in run.rejections]
    if reasons:
        return Failed(name="Would be rejected", message="; ".join(reasons))
    return Completed(name="Dry run", message="this file would be published")


def _tell(receipt: Receipt) -> None:
    """Show the result in the UI. Whatever Prefect makes of it, the receipt is committed already."""
    dataset = slug(receipt.contract.dataset).replace("_", "-")
    try:
        create_table_artifact(
            key=f"checks-{dataset}",
            table=[
                {
                    "rule": check.rule,
                    "result": "pass" if check.success else "FAIL",
                    "failing rows": check.rows_failing,
                    "observed": _short(check.observed),
                    "expected": _short(check.expected),
                }
                for check in receipt.checks
            ],
            description=f"What every rule of the contract {receipt.contract.dataset} found.",
        )
        create_markdown_artifact(key=f"summary-{dataset}", markdown=_summary(receipt), description="What became of it.")
        _tag(str(receipt.status), receipt.contract.dataset)
    except Exception as error:  # noqa: BLE001 (observability never holds data back)
        get_run_logger().warning("the artifacts could not be shown: %s", type(error).__name__)


def _tag(*tags: str) -> None:
    flow_run_id = runtime.flow_run.id
    if flow_run_id:
        with get_client(sync_client=True) as client:
            present = client.read_flow_run(flow_run_id).tags
            client.update_flow_run(flow_run_id, tags=sorted({*present, *tags}))


def _short(value: Any, limit: int = 120) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _summary(receipt: Receipt) -> str:
    rows, source = receipt.rows, receipt.source
    lines = [
        f"## {receipt.status.capitalize()}: {_code(source.key)}",
        "",
        "| rows | |",
        "|---|---:|",
        f"| in the file | {rows.rows_in:,} |",
        f"| published | {rows.published:,} |",
        *(f"| quarantined: {_code(rule)} | {count:,} |" for rule, count in rows.quarantined.items()),
        *(f"| dropped: {_code(step)} | {count:,} |" for step, count in rows.dropped.items()),
        "",
        *(f"- **{reason.code}**: {reason.message}" for reason in receipt.reasons),
        *(f"- {output.kind}: {_code(output.key)} ({output.rows:,} rows)" for output in receipt.outputs),
        f"- receipt: {_code(receipt_key(receipt.run_id))}, attempt {receipt.attempt}",
        f"- contract: {receipt.contract.dataset} {_code(receipt.contract.content_hash[:12])}",
        *(f"- {name.replace('_', ' ')}: {_code(value)}" for name, value in receipt.chain.model_dump().items() if value),
        "",
        "| stage | seconds |",
        "|---|---:|",
        *(f"| {stage} | {seconds:.2f} |" for stage, seconds in receipt.timings_seconds.items()),
    ]
    return "\n".join(lines)


def _code(text: Any) -> str:
    """Show `text` as code: a file's name must not become markup."""
    return "`" + re.sub(r"[`|\r\n]", "_", str(text)) + "`"
