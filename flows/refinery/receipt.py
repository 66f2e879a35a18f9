"""The receipt: the durable statement of what became of one object version. Pure."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.refinery.errors import TerminalError
from lambda_trigger.message import UploadMessage

SCHEMA_VERSION = 1
MAX_REASON_CHARACTERS = 300
_MAX_REASON_BYTES = 1500  # S3 allows 2 KB of user metadata in all
_MAX_CHECKS = 500  # keeps a receipt far below what Step Functions can carry (256 KiB)


class ReceiptUnreadable(TerminalError):
    """An object under receipts/ is not a receipt of a schema that this release reads."""


class Status(StrEnum):
    """What became of an upload."""

    PUBLISHED = "published"
    REJECTED = "rejected"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
    """The object version that was read."""

    bucket: str
    key: str
    version_id: str | None
    etag: str
    size_bytes: int
    sequencer: str | None = None
    last_modified: str | None = Field(None, description="ISO 8601, UTC; None when the object was gone")


class ContractUsed(_Part):
    """Which contract judged the file."""

    dataset: str
    content_hash: str = Field(description="sha256 of what the contract says and of its own steps")
    is_default: bool = Field(description="true: no contract matched the key, so the default one was used")


class Output(_Part):
    """One published object."""

    kind: str = Field(description="data, quarantine or fitted")
    key: str
    rows: int
    size_bytes: int
    sha256: str


class Rows(_Part):
    """Where every row went: rows_in = published + all quarantined + all dropped."""

    rows_in: int
    published: int
    quarantined: dict[str, int] = Field(default_factory=dict, description="by the first rule that a row broke")
    dropped: dict[str, int] = Field(default_factory=dict, description="by the step that dropped them")

    @property
    def quarantined_total(self) -> int:
        """Rows in quarantine."""
        return sum(self.quarantined.values())

    @property
    def dropped_total(self) -> int:
        """Rows that a preprocessing step, or the rejection of the file, dropped."""
        return sum(self.dropped.values())

    @property
    def balanced(self) -> bool:
        """Whether every row is accounted for."""
        return self.rows_in == self.published + self.quarantined_total + self.dropped_total


class Check(_Part):
    """What one rule of the contract found."""

    rule: str
    expectation: str
    column: str | None
    kind: str
    severity: str
    success: bool
    rows_evaluated: int | None = None
    rows_failing: int | None = None
    observed: Any = None
    expected: Any = None


class RejectionReason(_Part):
    """One reason why a file was rejected."""

    code: str
    message: str
    observed: Any = None
    expected: Any = None


class Chain(_Part):
    """The identifiers that tie one upload together across the services; None where a part was not involved."""

    message_id: str | None = None
    receive_count: int | None = None
    execution_arn: str | None = None
    task_arn: str | None = None
    flow_run_id: str | None = None


class Receipt(_Part):
    """What became of one object version. Its existence is the commit: readers trust it and nothing else."""

    schema_version: int = Field(SCHEMA_VERSION, alias="schema")
    status: Status
    run_id: str
    attempt: int
    source: Source
    contract: ContractUsed
    rows: Rows
    outputs: tuple[Output, ...] = ()
    checks: tuple[Check, ...] = ()
    reasons: tuple[RejectionReason, ...] = ()
    fitted: dict[str, Any] = Field(default_factory=dict)
    observed: bool = Field(description="false: Prefect's API was away, so no flow run shows this upload")
    code_version: str
    timings_seconds: dict[str, float] = Field(default_factory=dict)
    chain: Chain = Chain()
    created_at: str = Field(description="ISO 8601, UTC")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def reason(self) -> str:
        """Why the file was rejected, in one line; empty when it was published."""
        return "; ".join(reason.message for reason in self.reasons)

    @property
    def outcome_digest(self) -> str:
        """sha256 over what was decided and published, without when, by whom and how fast: two workers that did
        the same work have the same digest."""
        outcome = self.model_dump(
            mode="json",
            include={"status", "run_id", "attempt", "contract", "rows", "outputs", "reasons"},
        )
        return hashlib.sha256(json.dumps(outcome, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Serialise for S3."""
        kept = self.model_copy(update={"checks": self.checks[:_MAX_CHECKS]})
        return kept.model_dump_json(by_alias=True, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Receipt:
        """Read a receipt back.

        Raises:
            ReceiptUnreadable: naming the field that is wrong.
        """
        try:
            receipt = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the document"
            raise ReceiptUnreadable(f"not a receipt: {where}: {first['msg']}") from error
        if receipt.schema_version != SCHEMA_VERSION:
            raise ReceiptUnreadable(
                f"receipt {receipt.run_id} has schema {receipt.schema_version}; "
                f"this release reads schema {SCHEMA_VERSION}"
            )
        return receipt

    def metadata(self) -> dict[str, str]:
        """Return what the state machine reads without opening the body: S3 user metadata, ASCII only."""
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
    """Where the receipt of a run lies in the published bucket."""
    return f"receipts/{run_id}.json"


def output_stem(upload: UploadMessage) -> str:
    """Return the file name, without extension, of a run's outputs: from the run id alone, never from the key."""
    return f"{upload.run_id}-{upload.attempt}" if upload.attempt else upload.run_id
