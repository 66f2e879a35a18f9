"""The flow that a person starts to process one upload, to process it again, or to make a dry run."""

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from prefect import flow, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.states import Failed
from pydantic import Field

from blocks.aws_errors import AwsCallInvalid
from blocks.object_store import ObjectFacts
from flows.composition import parts_of_environment, task_identity
from flows.observability.observed_upload import final_state, run_observed
from flows.observability.run_identity import run_name
from flows.pipeline.announce import Announcer
from flows.pipeline.by_hand import reported
from flows.pipeline.commit import latest_receipt, read_receipt
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.receipt import Chain, Receipt
from flows.refinery.check_contract import check_contract
from flows.refinery.contract.loading import ContractInvalid, overridden
from flows.refinery.contract.model import Contract
from flows.refinery.errors import FileRejected, TerminalError
from lambda_trigger.message import UploadMessage


class ParametersWrong(TerminalError):
    """A manual run was started with invalid parameters; the message explains how to correct them."""


def _flow_run_name() -> str:
    return run_name(str(runtime.flow_run.parameters.get("key", "")), None)


@flow(
    name="process-upload",
    description="Read one uploaded file, validate it, quarantine bad rows, preprocess the rest, and publish it.",
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
    """Process one uploaded object version: publish or reject it, and write its receipt.

    Prefect's form for a custom run shows these descriptions.

    Args:
        key: The object's key, such as incoming/orders/monday.csv, or its full s3:// URI.
        bucket: The object's bucket. If empty, the landing bucket is used.
        version_id: The object version. If empty, the newest version is used.
        dataset: The dataset whose contract is used. If empty, the contract that matches the key is used.
        force: Process the upload again even if it has a receipt; the new receipt replaces the old one.
        dry_run: Validate and preprocess the file, but write nothing.
        contract: Fields of the contract to change for this run, such as {"bad_rows": {"max_fraction": 0.5}}.
    """
    parts = parts_of_environment()
    try:
        job = job_by_hand(
            parts, key, bucket, version_id or None, dataset=dataset, changes=contract, force=force, dry_run=dry_run
        )
    except ParametersWrong as error:
        return Failed(message=f"Invalid parameters: {error}")
    receipt = reported(parts, job, lambda: run_observed(parts, job), Announcer(parts).announce)
    return final_state(receipt, dry_run=dry_run)


def job_by_hand(
    parts: Parts,
    key: str,
    bucket: str = "",
    version_id: str | None = None,
    *,
    dataset: str = "",
    changes: dict[str, Any] | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> UploadJob:
    """Return the job for a run that a person started, with an upload message for the object version. The parameters are
    those of `process_upload`, except that its `contract` is called `changes` here. Raise ParametersWrong if the key is
    not that of an upload, if the object version or the dataset does not exist, or if the contract or its changes are
    invalid."""
    if key.startswith("s3://"):
        bucket, _, key = key.removeprefix("s3://").partition("/")
    settings = parts.settings
    bucket = bucket or settings.landing_bucket
    if not settings.is_upload(bucket, key):
        raise ParametersWrong(f"s3://{bucket}/{key} is not an upload: uploads are under {settings.uploads_uri}")
    contract = _contract_by_hand(parts, key, dataset, changes or {})
    try:
        facts = parts.store.head(bucket, key, version_id)
    except (FileRejected, AwsCallInvalid) as error:  # AwsCallInvalid: S3 rejects a malformed version ID
        raise ParametersWrong(
            f"{error}. To find the correct bucket, key and version, run: "
            f"aws s3api list-object-versions --bucket {bucket} --prefix {shlex.quote(key)}"
        ) from None
    upload = UploadMessage(
        bucket=bucket, key=key, version_id=facts.version_id, etag=facts.etag, size_bytes=facts.size_bytes
    )
    if upload.version_id is None:
        upload = replace(upload, sequencer=_sequencer_of(parts, upload, facts, contract))
    existing = read_receipt(parts.store, upload.run_id)
    if existing and (force or _is_retry_of(existing)):
        # Only an S3 event has a sequencer. Without it, versions that were written in the same second could be ordered
        # incorrectly.
        upload = replace(upload, attempt=existing.attempt + 1, sequencer=existing.source.sequencer)
    task = task_identity()  # a task of the stack, if a worker of type ecs started this run
    chain = Chain(task_arn=task.task_arn)
    return UploadJob(upload, chain, contract=contract, by_hand=True, dry_run=dry_run, log=task.log)


def _contract_by_hand(parts: Parts, key: str, dataset: str, changes: dict[str, Any]) -> Contract | None:
    """Return the contract that the parameters request, or None if they request none, so that the key decides. Raise
    ParametersWrong if the dataset is unknown, or if its contract or the changes are invalid."""
    try:
        contract = parts.contracts.named(dataset) if dataset else parts.contracts.for_key(key)
        if not changes:
            return contract if dataset else None
        changed = overridden(contract, changes)
        check_contract(changed)
        return changed
    except ContractInvalid as error:
        raise ParametersWrong(str(error)) from None


def _sequencer_of(parts: Parts, upload: UploadMessage, facts: ObjectFacts, contract: Contract | None) -> str | None:
    """Return the sequencer in the latest receipt for the object's key, or None if that receipt is not for this object.
    In a bucket without versioning, the run ID depends on the sequencer, and only an S3 event contains it."""
    dataset = (contract or parts.contracts.for_key(upload.key)).dataset
    latest = latest_receipt(parts.store, dataset, upload.bucket, upload.key)
    if latest is None or (latest.source.etag, latest.source.last_modified) != (facts.etag, facts.last_modified):
        return None
    return latest.source.sequencer


def _is_retry_of(receipt: Receipt) -> bool:
    """Return whether a person pressed Retry after this flow run had written `receipt`, which means that the file should
    be processed again."""
    run_id = str(runtime.flow_run.id)
    if (runtime.flow_run.run_count or 1) < 2 or receipt.chain.flow_run_id != run_id:
        return False
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(run_id))
    # If Retry was never pressed, another task merely took over the run.
    asked = [state.timestamp for state in states if state.type is StateType.SCHEDULED]
    # If the receipt is newer than the Retry, another delivery of the message has already processed the file again.
    return max(asked, default=datetime.min.replace(tzinfo=UTC)) > datetime.fromisoformat(receipt.created_at)
