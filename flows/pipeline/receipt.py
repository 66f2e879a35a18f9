"""The receipt: the durable record of the outcome of one object version. Pure."""

import hashlib
import json
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline.document import Document
from flows.refinery.checks import Check, Decision, RejectionReason
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError
from lambda_trigger.message import UploadMessage, folder_of

RECEIPTS = "receipts/"
MAX_REASON_CHARACTERS = 300
_MAX_REASON_BYTES = 1500  # S3 allows 2 KB of user metadata in total
_MAX_CHECKS = 500  # keeps a receipt far below what Step Functions can carry (256 KiB)


CORRECTIONS = "corrections"
"""The kind of output that holds the values corrected by repairs."""


class ReceiptUnreadable(TerminalError):
    """An object under receipts/ is not a receipt of a schema that this release reads."""


class Status(StrEnum):
    """The outcome of an upload."""

    PUBLISHED = "published"
    REJECTED = "rejected"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
    """The object version that was read."""

    bucket: str
    key: str
    version_id: str | None = Field(description="null on a bucket without versioning")
    etag: str
    size_bytes: int
    sequencer: str | None = Field(None, description="S3's order of the events of one key; null without an S3 event")
    last_modified: str | None = Field(None, description="ISO 8601, UTC; None when the object was gone")


class ContractUsed(_Part):
    """Which contract judged the file."""

    dataset: str = Field(description="the dataset of the contract")
    content_hash: str = Field(description="sha256 of the contract's content and of its custom steps")
    is_default: bool = Field(description="true: no contract matched the key, so the default one was used")


class Output(_Part):
    """One published object."""

    kind: str = Field(description="data, quarantine, fitted or corrections")
    key: str = Field(description="its key in the published bucket")
    rows: int
    size_bytes: int
    sha256: str = Field(description="of its bytes, in hexadecimal")

    @property
    def is_retirable(self) -> bool:
        """Return whether a re-upload of its key replaces it: the clean rows, and what was fitted on them."""
        return self.kind in ("data", "fitted")


class Rows(_Part):
    """What happened to every row: rows_in = published + all quarantined + all dropped."""

    rows_in: int = Field(description="data rows in the file, those that could not be decoded included")
    published: int = Field(description="rows in the outputs of kind data")
    quarantined: dict[str, int] = Field(default_factory=dict, description="by the first rule that a row broke")
    dropped: dict[str, int] = Field(default_factory=dict, description="by the step, or dropped_by_repair")

    @property
    def quarantined_total(self) -> int:
        """Return the number of rows in quarantine."""
        return sum(self.quarantined.values())

    @property
    def dropped_total(self) -> int:
        """Return rows that a preprocessing step, or the rejection of the file, dropped."""
        return sum(self.dropped.values())

    @property
    def balanced(self) -> bool:
        """Return whether every row is accounted for."""
        return self.rows_in == self.published + self.quarantined_total + self.dropped_total


class Chain(_Part):
    """The identifiers that tie one upload together across the services; None where a part was not involved."""

    message_id: str | None = Field(None, description="the SQS message")
    receive_count: int | None = Field(None, description="how often it had been delivered")
    execution_arn: str | None = Field(
        None, description="the Step Functions execution; null when a task started for another file did the work"
    )
    task_arn: str | None = Field(None, description="the ECS task")
    flow_run_id: str | None = Field(None, description="the Prefect flow run")


class Receipt(Document):
    """The outcome of one object version. Its existence is the commit: readers trust it and nothing else."""

    noun, unreadable = "a receipt", ReceiptUnreadable

    status: Status = Field(description="published or rejected")
    run_id: str = Field(description="32 hexadecimal characters from bucket, key and version")
    attempt: int = Field(description="0 for the upload itself, n for its n-th forced re-run")
    source: Source = Field(description="the object version that was read")
    contract: ContractUsed = Field(description="which contract judged it")
    rows: Rows = Field(description="where every row went")
    outputs: tuple[Output, ...] = Field(
        (), description="the published objects; of a rejected file only earlier corrections"
    )
    read_as: tuple[Decision, ...] = Field((), description="how the reader took the file; none where it could not")
    checks: tuple[Check, ...] = Field((), description="what every rule of the contract found")
    reasons: tuple[RejectionReason, ...] = Field((), description="why it was rejected; none when published")
    fitted: dict[str, Any] = Field(default_factory=dict, description="what fitted steps learned, by step and column")
    observed: bool = Field(description="false: Prefect's API was away, so no flow run shows this upload")
    code_version: str = Field(description="the release of Sluice")
    docs_page: str | None = Field(None, description="key of the Data Docs page; empty where it could not be made")
    timings_seconds: dict[str, float] = Field(default_factory=dict, description="by stage")
    chain: Chain = Field(Chain(), description="what ties the services together; null where a part was not involved")
    created_at: str = Field(description="ISO 8601, UTC")

    @property
    def reason(self) -> str:
        """Return why the file was rejected, in one line; empty when it was published."""
        return "; ".join(reason.message for reason in self.reasons)

    @property
    def outcome_digest(self) -> str:
        """sha256 of the decision and the outputs, without times and identifiers: two workers that did the same
        work have the same digest."""
        outcome = self.model_dump(
            mode="json",
            include={"status", "run_id", "attempt", "contract", "rows", "outputs", "reasons"},
        )
        return hashlib.sha256(json.dumps(outcome, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Serialise for S3."""
        kept = self.model_copy(update={"checks": self.checks[:_MAX_CHECKS]})
        return kept.model_dump_json(by_alias=True, indent=1)

    def metadata(self) -> dict[str, str]:
        """Return the S3 user metadata, ASCII only, which the state machine reads without downloading the body."""
        return {
            "status": str(self.status),
            "run-id": self.run_id,
            "attempt": str(self.attempt),
            "reason": _escaped(self.reason),
        }


def _escaped(text: str) -> str:
    """URL-escape as much of `text` as fits into the metadata, never cutting a character in two."""
    shortened = text[:MAX_REASON_CHARACTERS]
    while len(quote(shortened)) > _MAX_REASON_BYTES:
        shortened = shortened[:-1]
    return quote(shortened)


def receipt_key(run_id: str) -> str:
    """Return the key of a run's receipt in the published bucket."""
    return f"{RECEIPTS}{run_id}.json"


def area_of(contract: Contract, upload: UploadMessage, incoming_prefix: str) -> str:
    """Return the folder under data/ and quarantine/ for the outputs of a run. Files of the default contract are
    separated by the folder that they were uploaded to, as their formats may differ."""
    folder = folder_of(upload.key, incoming_prefix) if contract.is_default else ""
    return f"{contract.dataset}/{folder}" if folder else contract.dataset


def output_stem(upload: UploadMessage, sha256: str) -> str:
    """Return the file name of an output without extension: run, attempt and content hash, no part of the source key.

    The content hash keeps workers from overwriting outputs that another worker's receipt references: two workers
    with different results write different objects, and the receipt decides which one counts.
    """
    return f"{upload.run_id}-{upload.attempt}-{sha256[:16]}"
