"""The four stages of an upload: fetch, refine, publish and record."""

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from blocks.aws_errors import AwsUnavailable
from blocks.object_store import ObjectFacts, ObjectGone
from flows import __version__
from flows.pipeline.commit import commit_and_settle, read_receipt, settle, without_corrections
from flows.pipeline.data_docs import list_pages, publish_page
from flows.pipeline.early_uploads import EarlyUploads
from flows.pipeline.errors import RepairRejected, StageBroke
from flows.pipeline.job import Fetched, Outcome, Parts, Published, UploadJob
from flows.pipeline.protocol import is_done
from flows.pipeline.receipt import (
    CORRECTIONS,
    ContractUsed,
    Output,
    Receipt,
    Rows,
    Source,
    Status,
    output_key,
)
from flows.refinery.checks import RejectionReason
from flows.refinery.contract.model import Contract
from flows.refinery.errors import FileRejected, TerminalError
from flows.refinery.output_files import LEAVE, OutputFile, TakeAway, output_file
from flows.refinery.read.path_columns import folders_of
from flows.refinery.read.remote_file import RemoteFile
from flows.refinery.read.remote_file import Source as SourceFile
from flows.refinery.refine import Progress, Refined, refine_file
from flows.refinery.repair.corrections import read_corrections
from lambda_trigger.message import UploadMessage

_OVERWRITTEN = (
    "the file was overwritten before it was read; the newer upload is processed as another run. "
    "With versioning on the landing bucket every upload is kept"
)


class ObjectReplaced(FileRejected):
    """The object was overwritten before or while it was read, in a bucket without versioning."""


class ObjectTooLarge(FileRejected):
    """The object is larger than `max_object_bytes`."""


class CorrectionsGone(TerminalError):
    """The corrections of an earlier repair have expired or were deleted, so processing the file again would lose them.

    The existing receipt remains valid. To process the file without the corrections, upload it again.
    """


# --- fetch ------------------------------------------------------------------------------------------------------------


def fetch(parts: Parts, job: UploadJob, contract: Contract, earlier: Receipt | None, work_dir: Path) -> Fetched:
    """Download the object version, and the corrections of earlier repairs. An object larger than `max_copy_fraction`
    of the free disk space is not downloaded, but read from S3 in ranges later.

    Args:
        earlier: the receipt of an earlier attempt, which names the corrections; None if there is none.
        work_dir: an empty folder for this upload's files.

    Raises:
        ObjectGone, ObjectReplaced, ObjectTooLarge: the file cannot be processed.
        CorrectionsGone: the corrections of an earlier repair no longer exist.
    """
    source, facts = _download(parts, job.upload, work_dir)
    corrections = job.corrections
    for place, output in enumerate(reversed(_corrections_of(earlier))):
        local = work_dir / f"corrections-{place}.parquet"
        try:
            parts.store.download(parts.store.published_bucket, output.key, local)
        except ObjectGone:
            raise CorrectionsGone(
                f"run {job.upload.run_id} was repaired, and its corrections ({output.key}) have expired or were "
                "deleted; its receipt remains valid. To process the file without them, upload it again"
            ) from None
        kept = read_corrections(local)
        corrections = corrections.over(kept) if corrections else kept
    return Fetched(source, work_dir, facts, contract, corrections, folders_of(job.upload.key))


def _download(parts: Parts, upload: UploadMessage, work_dir: Path) -> tuple[SourceFile, ObjectFacts]:
    store, limit, path = parts.store, parts.settings.max_object_bytes, work_dir / "source"
    at_most = int(shutil.disk_usage(work_dir).free * parts.settings.max_copy_fraction)

    def accept(facts: ObjectFacts) -> None:
        if facts.size_bytes > limit:
            raise ObjectTooLarge(
                f"the file has {facts.size_bytes:,} bytes; the limit is {limit:,} (SLUICE_MAX_OBJECT_BYTES)"
            )
        if upload.version_id is None and upload.etag and facts.etag != upload.etag:
            raise ObjectReplaced(_OVERWRITTEN)

    facts = store.download(upload.bucket, upload.key, path, upload.version_id, accept=accept, at_most=at_most)
    with suppress(ObjectGone):  # it has been deleted since: use what was read
        if not upload.version_id and store.head(upload.bucket, upload.key).etag != facts.etag:
            raise ObjectReplaced(_OVERWRITTEN)
    if not path.exists():
        return RemoteFile(
            facts.size_bytes, work_dir, partial(store.read_range, upload.bucket, upload.key, facts)
        ), facts
    if path.stat().st_size != facts.size_bytes:
        raise AwsUnavailable(
            f"reading s3://{upload.bucket}/{upload.key}: got {path.stat().st_size:,} of {facts.size_bytes:,} bytes"
        )
    return path, facts


def _corrections_of(receipt: Receipt | None) -> tuple[Output, ...]:
    return tuple(output for output in receipt.outputs if output.kind == CORRECTIONS) if receipt else ()


# --- refine -----------------------------------------------------------------------------------------------------------


def refine(fetched: Fetched, on_progress: Progress | None = None, take_away: TakeAway = LEAVE) -> Refined:
    """Read, validate and preprocess the file, and write the results to the work folder. `take_away` gets each output
    file that is full, and may delete it from the disk."""
    return refine_file(
        fetched.source,
        fetched.contract,
        fetched.work_dir,
        folders=fetched.folders,
        corrections=fetched.corrections,
        on_progress=on_progress,
        take_away=take_away,
    )


# --- publish ----------------------------------------------------------------------------------------------------------


def publish(parts: Parts, job: UploadJob, fetched: Fetched, refined: Refined, early: EarlyUploads) -> Published:
    """Upload the outputs under keys that contain the run ID, and complete the early uploads. Readers ignore them until
    a receipt names them. If another worker has already committed the same attempt or a later one, upload nothing and
    return that worker's receipt; for a repair, raise ReceiptConflict instead."""
    other = read_receipt(parts.store, job.upload.run_id)
    if is_done(other, job.upload.attempt):
        if job.corrections:
            raise without_corrections(job.upload.run_id)
        return Published(receipt=other)  # outputs uploaded now would have to be deleted afterwards
    outputs = []
    for kind, file in _files(fetched, refined):
        key = output_key(kind, fetched.contract, job.upload, parts.settings.incoming_prefix, file)
        if not early.complete(key):
            parts.store.upload(key, file.path, sha256=file.sha256)
        outputs.append(Output(kind=kind, key=key, rows=file.rows, size_bytes=file.size_bytes, sha256=file.sha256))
    return Published(tuple(outputs))


def _files(fetched: Fetched, refined: Refined) -> list[tuple[str, OutputFile]]:
    """Write the files for fitted steps and corrections, and return all files to publish with their kinds of output."""
    work_dir = fetched.work_dir
    files = [("data", file) for file in refined.outputs] + [("quarantine", file) for file in refined.quarantine]
    if refined.fitted:
        path = work_dir / "fitted.json"
        path.write_text(json.dumps(refined.fitted, sort_keys=True, indent=1))
        # Readers of data folders skip names that begin with _.
        files.append(("fitted", output_file(path, "_fitted/", 0, ".json")))
    if fetched.corrections:  # later attempts at the same object version include them
        path = work_dir / "corrections.parquet"
        fetched.corrections.write(path)
        corrections = output_file(path, "", len(fetched.corrections.rows), ".corrections.parquet")
        files.append((CORRECTIONS, corrections))
    return files


# --- record -----------------------------------------------------------------------------------------------------------


def record(parts: Parts, job: UploadJob, outcome: Outcome) -> Receipt:
    """Publish the Data Docs page, commit the receipt, and update the index. Return the valid receipt of the run, which
    may be another worker's.

    Raises:
        RepairRejected: this is a repair, and the file would be rejected.
        ReceiptConflict: a different result for the same attempt was committed first.
    """
    if outcome.published and outcome.published.receipt:
        settle(parts, job, outcome.contract, outcome.published.receipt)
        return outcome.published.receipt
    receipt = receipt_of(job, outcome)
    if receipt.reasons and job.corrections:
        raise RepairRejected(receipt.reason)
    parts.keep_contract(outcome.contract)
    receipt = receipt.model_copy(update={"docs_page": publish_page(parts.store, receipt)})
    committed = commit_and_settle(parts, job, outcome.contract, receipt)
    if job.by_hand:  # a task lists the pages of a batch together (closing.py)
        list_pages(parts.store, [committed])
    return committed


def receipt_of(job: UploadJob, outcome: Outcome) -> Receipt:
    """Return the receipt for an outcome. Raise StageBroke if not every row is accounted for."""
    upload, refined, contract = job.upload, outcome.refined, outcome.contract
    reasons, published = _reasons(outcome), outcome.published or Published()
    rows = _rows(refined, rejected=bool(reasons))
    if not rows.balanced:
        raise StageBroke(
            f"run {upload.run_id}: {rows.rows_in} rows were read, but {rows.published} + "
            f"{rows.quarantined_total} + {rows.dropped_total} are accounted for; nothing was committed"
        )
    return Receipt(
        status=Status.REJECTED if reasons else Status.PUBLISHED,
        run_id=upload.run_id,
        attempt=upload.attempt,
        source=Source(
            bucket=upload.bucket,
            key=upload.key,
            version_id=upload.version_id,
            etag=upload.etag,
            size_bytes=upload.size_bytes,
            sequencer=upload.sequencer,
            last_modified=outcome.fetched.facts.last_modified if outcome.fetched else upload.event_time,
        ),
        contract=ContractUsed(
            dataset=contract.dataset, content_hash=contract.content_hash, is_default=contract.is_default
        ),
        rows=rows,
        outputs=_corrections_of(outcome.earlier) if reasons else published.outputs,
        read_as=refined.decisions if refined else (),
        checks=refined.checks if refined else (),
        reasons=reasons,
        fitted=refined.fitted if refined and not reasons else {},
        observed=job.chain.flow_run_id is not None,
        code_version=__version__,
        timings_seconds={stage: round(seconds, 3) for stage, seconds in outcome.seconds.items()},
        chain=job.chain,
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )


def _reasons(outcome: Outcome) -> tuple[RejectionReason, ...]:
    if outcome.error:
        return (RejectionReason.of(outcome.error),)
    return outcome.refined.rejected if outcome.refined else ()


def _rows(refined: Refined | None, *, rejected: bool) -> Rows:
    if refined is None:
        return Rows(rows_in=0, published=0)
    if rejected:
        dropped = {"file_rejected": refined.rows_in} if refined.rows_in else {}
        return Rows(rows_in=refined.rows_in, published=0, dropped=dropped)
    return Rows(
        rows_in=refined.rows_in,
        published=refined.rows_published,
        quarantined=dict(refined.quarantined),
        dropped=dict(refined.dropped),
    )
