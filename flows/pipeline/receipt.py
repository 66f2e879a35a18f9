"""The receipt: the durable record of the outcome of one object version."""

import hashlib
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline.document import Document
from flows.refinery.checks import Check, Decision, RejectionReason
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError
from lambda_trigger.message import UploadMessage, folder_of

if TYPE_CHECKING:  # receipts are read without pyarrow
    from flows.refinery.output_files import OutputFile

RECEIPTS = "receipts/"
MAX_REASON_CHARACTERS = 300
_MAX_REASON_BYTES = 1500  # S3 allows 2 KB of user metadata in total
_MAX_CHECKS = 500  # keeps a receipt small


CORRECTIONS = "corrections"
"""The kind of output that contains the values corrected by repairs."""


class ReceiptUnreadable(TerminalError):
    """An object under receipts/ is not a receipt with a schema version that this release can read."""


class Status(StrEnum):
    """The outcome of an upload."""

    PUBLISHED = "published"
    REJECTED = "rejected"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
    """The object version that was processed."""

    bucket: str
    key: str
    version_id: str | None = Field(description="null on a bucket without versioning")
    etag: str
    size_bytes: int
    sequencer: str | None = Field(None, description="orders the S3 events of one key; null without an S3 event")
    last_modified: str | None = Field(
        None, description="ISO 8601, UTC; if the object could not be read, the time of its event or null"
    )


class ContractUsed(_Part):
    """The contract that the file was checked against."""

    dataset: str = Field(description="the dataset of the contract")
    content_hash: str = Field(description="SHA-256 hash of the contract and its custom steps")
    is_default: bool = Field(description="whether the default contract was used because no other one matched the key")


class Output(_Part):
    """One object that the run wrote to the published bucket."""

    kind: str = Field(description="data, quarantine, fitted or corrections")
    key: str = Field(description="its key in the published bucket")
    rows: int
    size_bytes: int
    sha256: str = Field(description="the SHA-256 of its bytes, in hexadecimal")

    @property
    def is_retirable(self) -> bool:
        """Return whether a re-upload can replace objects of this kind."""
        return self.kind in ("data", "fitted")


class Rows(_Part):
    """What happened to the rows of a file: rows_in = published + all quarantined + all dropped."""

    rows_in: int = Field(description="data rows in the file, including those that could not be decoded")
    published: int = Field(description="rows in the outputs of kind data")
    quarantined: dict[str, int] = Field(default_factory=dict, description="rows by the first rule that each row broke")
    dropped: dict[str, int] = Field(
        default_factory=dict, description="rows by the step that dropped them, dropped_by_repair or file_rejected"
    )

    @property
    def quarantined_total(self) -> int:
        return sum(self.quarantined.values())

    @property
    def dropped_total(self) -> int:
        """Return the number of rows that were dropped by preprocessing steps, by repairs, or because the file was
        rejected."""
        return sum(self.dropped.values())

    @property
    def left_out(self) -> str:
        """Return how many rows were quarantined and dropped, such as ", 3 quarantined, 1 dropped", or "" if none."""
        counts = {"quarantined": self.quarantined_total, "dropped": self.dropped_total}
        return "".join(f", {count:,} {what}" for what, count in counts.items() if count)

    @property
    def balanced(self) -> bool:
        """Return whether every row of the file is accounted for."""
        return self.rows_in == self.published + self.quarantined_total + self.dropped_total


class Chain(_Part):
    """The identifiers of one upload in each service; None for a service that was not involved."""

    message_id: str | None = Field(None, description="the SQS message")
    receive_count: int | None = Field(None, description="how many times the message had been delivered")
    execution_arn: str | None = Field(
        None, description="the Step Functions execution that launched the task; null if no execution did"
    )
    task_arn: str | None = Field(None, description="the ECS task")
    flow_run_id: str | None = Field(None, description="the Prefect flow run")


class Receipt(Document):
    """The outcome of one object version. Writing it is the commit: readers see only outputs that a receipt names."""

    noun, unreadable = "a receipt", ReceiptUnreadable

    status: Status = Field(description="published or rejected")
    run_id: str = Field(description="32 hexadecimal characters from bucket, key and version")
    attempt: int = Field(description="0 for the upload itself; each forced re-run or repair adds 1")
    source: Source = Field(description="the object version that was processed")
    contract: ContractUsed = Field(description="the contract that the file was checked against")
    rows: Rows = Field(description="what happened to every row")
    outputs: tuple[Output, ...] = Field(
        (), description="the published objects; for a rejected file, only earlier corrections"
    )
    read_as: tuple[Decision, ...] = Field((), description="how the reader read the file; empty if it could not")
    checks: tuple[Check, ...] = Field((), description="what the rules of the contract found; at most 500")
    reasons: tuple[RejectionReason, ...] = Field((), description="why the file was rejected; empty if it was published")
    fitted: dict[str, Any] = Field(default_factory=dict, description="what fitted steps learned, by step and column")
    observed: bool = Field(description="whether a live flow run in Prefect showed the upload")
    code_version: str = Field(description="the version of Sluice")
    docs_page: str | None = Field(None, description="key of the Data Docs page; null if it could not be written")
    timings_seconds: dict[str, float] = Field(default_factory=dict, description="seconds by stage")
    chain: Chain = Field(Chain(), description="the upload's identifiers in each service")
    created_at: str = Field(description="ISO 8601, UTC")

    @property
    def reason(self) -> str:
        """Return why the file was rejected, in one line; "" if it was published."""
        return "; ".join(reason.message for reason in self.reasons)

    @property
    def outcome_digest(self) -> str:
        """Return the SHA-256 hash of the outcome, without times and service identifiers, so that two workers with the
        same result get the same digest."""
        outcome = self.model_dump(
            mode="json",
            include={"status", "run_id", "attempt", "contract", "rows", "outputs", "reasons"},
        )
        return hashlib.sha256(json.dumps(outcome, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the JSON text that is stored in S3, with at most 500 checks."""
        kept = self.model_copy(update={"checks": self.checks[:_MAX_CHECKS]})
        return Document.to_json(kept)

    def metadata(self) -> dict[str, str]:
        """Return the outcome as S3 user metadata in ASCII, so that it can be read without the object's body."""
        return {
            "status": str(self.status),
            "run-id": self.run_id,
            "attempt": str(self.attempt),
            "reason": _escaped(self.reason),
        }


def _escaped(text: str) -> str:
    """Return the beginning of `text`, as much as fits into S3 metadata, URL-encoded without splitting a character."""
    shortened = text[:MAX_REASON_CHARACTERS]
    while len(quote(shortened)) > _MAX_REASON_BYTES:
        shortened = shortened[:-1]
    return quote(shortened)


def receipt_key(run_id: str) -> str:
    """Return the key of a run's receipt in the published bucket."""
    return f"{RECEIPTS}{run_id}.json"


def area_of(contract: Contract, upload: UploadMessage, incoming_prefix: str) -> str:
    """Return the folder under data/ and quarantine/ for the outputs of a run: DATASET or, for the default contract,
    DATASET/FOLDER. FOLDER is the folder that the file was uploaded to, because files in different folders may have
    different formats."""
    folder = folder_of(upload.key, incoming_prefix) if contract.is_default else ""
    return f"{contract.dataset}/{folder}" if folder else contract.dataset


def output_key(kind: str, contract: Contract, upload: UploadMessage, incoming_prefix: str, file: "OutputFile") -> str:
    """Return the object key of an output. It consists of `data` or `quarantine`, the area (`area_of`), the output's
    folder, the run ID, the attempt, a content hash and the extension. The name of the uploaded file is not part of it.

    The content hash prevents a worker from overwriting outputs that another worker's receipt references. Two workers
    with different results write different objects, and the receipt decides which of them is used.
    """
    prefix = "quarantine" if kind in ("quarantine", CORRECTIONS) else "data"
    name = f"{upload.run_id}-{upload.attempt}-{file.sha256[:16]}{file.extension}"
    return f"{prefix}/{area_of(contract, upload, incoming_prefix)}/{file.folder}{name}"
