"""Sample uploads and receipts for tests."""

from __future__ import annotations

from typing import Any

from flows.pipeline.receipt import ContractUsed, Output, Receipt, Rows, Source, Status
from flows.refinery.checks import RejectionReason
from lambda_trigger.message import UploadMessage


def upload(version: int = 1, key: str = "incoming/orders/monday.csv", attempt: int = 0) -> UploadMessage:
    """Return the message for a version of an object. A higher number is a newer version."""
    return UploadMessage(
        bucket="landing",
        key=key,
        version_id=f"v{version}",
        etag=f"{version:032x}",
        size_bytes=10,
        sequencer=f"{version:018X}",
        attempt=attempt,
    )


def receipt_of(message: UploadMessage, *, published: bool = True, **changes: Any) -> Receipt:
    """Return the receipt of an upload that was published with ten rows, or that was rejected.

    Args:
        message: the upload.
        published: whether the status is published rather than rejected.
        changes: fields of the receipt that differ from the defaults.
    """
    stem = f"{message.run_id}-{message.attempt}" if message.attempt else message.run_id
    output = Output(kind="data", key=f"data/orders/{stem}.parquet", rows=10, size_bytes=100, sha256="ab" * 32)
    fields: dict[str, Any] = {
        "status": Status.PUBLISHED if published else Status.REJECTED,
        "run_id": message.run_id,
        "attempt": message.attempt,
        "source": Source(
            bucket=message.bucket,
            key=message.key,
            version_id=message.version_id,
            etag=message.etag,
            size_bytes=message.size_bytes,
            sequencer=message.sequencer,
            last_modified="2026-01-01T00:00:00.000000Z",
        ),
        "contract": ContractUsed(dataset="orders", content_hash="cd" * 32, is_default=False),
        "rows": Rows(rows_in=10, published=10) if published else Rows(rows_in=10, published=0, dropped={"file": 10}),
        "outputs": (output,) if published else (),
        "reasons": () if published else (RejectionReason(code="empty", message="the file is empty"),),
        "observed": True,
        "code_version": "0.1.0",
        "created_at": "2026-01-01T00:00:01.000000Z",
    }
    return Receipt(**{**fields, **changes})
