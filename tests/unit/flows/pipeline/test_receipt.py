"""A receipt keeps its content as JSON, its metadata fits the limit of S3, and its digest identifies the result."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.pipeline.receipt import Receipt, ReceiptUnreadable, Rows
from flows.refinery.checks import RejectionReason
from tests.unit.flows.pipeline.receipts import receipt_of, upload


@pytest.mark.parametrize("published", [True, False])
def test_a_receipt_survives_json(published: bool) -> None:
    receipt = receipt_of(upload(), published=published)
    assert Receipt.from_json(receipt.to_json()) == receipt


@given(reason=st.text(max_size=2_000))
def test_the_metadata_fits_s3_whatever_the_reason(reason: str) -> None:
    """S3 limits user metadata to 2 KB of US-ASCII: docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html"""
    receipt = receipt_of(upload(), published=False, reasons=(RejectionReason(code="x", message=reason),))
    metadata = receipt.metadata()
    assert sum(len(name) + len(value) for name, value in metadata.items()) < 2_048
    assert all(value.isascii() for value in metadata.values())
    assert reason.startswith(unquote(metadata["reason"]))


def test_the_metadata_has_the_status_the_attempt_and_the_reason() -> None:
    metadata = receipt_of(upload(attempt=3), published=False).metadata()
    assert metadata["status"] == "rejected"
    assert metadata["attempt"] == "3"
    assert unquote(metadata["reason"]) == "the file is empty"


def test_two_workers_that_did_the_same_work_have_the_same_digest() -> None:
    ours, theirs = receipt_of(upload()), receipt_of(upload(), created_at="2026-02-02T00:00:00Z", observed=False)
    assert ours.outcome_digest == theirs.outcome_digest


@pytest.mark.parametrize(
    "change", [{"rows": Rows(rows_in=10, published=9, dropped={"x": 1})}, {"outputs": ()}, {"attempt": 1}]
)
def test_a_different_result_has_a_different_digest(change: dict[str, Any]) -> None:
    assert receipt_of(upload()).outcome_digest != receipt_of(upload(), **change).outcome_digest


def test_rows_balance_only_when_every_row_is_accounted_for() -> None:
    assert Rows(rows_in=6, published=3, quarantined={"a": 1}, dropped={"b": 2}).balanced
    assert not Rows(rows_in=6, published=3, quarantined={"a": 1}, dropped={"b": 1}).balanced


@pytest.mark.parametrize(
    ("text", "says"),
    [("{}", "status"), ("no json", "the document"), ('{"status": "eaten"}', "status")],
)
def test_an_invalid_receipt_is_rejected_with_its_field(text: str, says: str) -> None:
    with pytest.raises(ReceiptUnreadable, match=says):
        Receipt.from_json(text)


def test_a_receipt_of_a_later_release_is_rejected() -> None:
    later = receipt_of(upload()).to_json().replace('"schema": 1', '"schema": 2')
    with pytest.raises(ReceiptUnreadable, match="schema: "):
        Receipt.from_json(later)
