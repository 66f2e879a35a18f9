"""Each upload gets a Data Docs page and a line in the index of pages, but a failure there never holds back data."""

from __future__ import annotations

import logging

import boto3
import pytest

import flows.pipeline.data_docs
from flows.observability.run_summary import ConsoleLinks, upload_summary
from flows.pipeline.commit import read_receipt
from flows.pipeline.data_docs import change_text, read_index
from flows.pipeline.receipt import Receipt, Status
from tests.chain.files import dirty_orders, good_orders
from tests.unit.flows.conftest import PUBLISHED, Account
from tests.unit.flows.pipeline.receipts import receipt_of, upload

KEY = "incoming/orders/monday.csv"
INDEX = "docs/orders/index.html"


def process(account: Account, body: bytes, key: str = KEY) -> Receipt:
    return account.process(account.upload(key, body))


def text_at(key: str) -> str:
    return boto3.client("s3").get_object(Bucket=PUBLISHED, Key=key)["Body"].read().decode()


def test_an_upload_has_a_page_that_its_receipt_names(account: Account) -> None:
    receipt = process(account, dirty_orders())
    assert receipt.docs_page is not None
    assert receipt.docs_page.startswith(f"docs/orders/{receipt.run_id}-0-")
    page = boto3.client("s3").get_object(Bucket=PUBLISHED, Key=receipt.docs_page)
    assert page["ContentType"] == "text/html; charset=utf-8"
    assert b"Great Expectations" in page["Body"].read()


def test_the_page_shows_no_value_of_a_quarantined_row(account: Account) -> None:
    receipt = process(account, dirty_orders())
    assert receipt.rows.quarantined_total == 2
    page = text_at(str(receipt.docs_page))
    assert "ORD-00000010" not in page
    assert "cheap" not in page


def test_a_rejected_file_has_a_page_too(account: Account) -> None:
    receipt = process(account, b"")
    assert receipt.status is Status.REJECTED
    assert "the file is empty" in text_at(str(receipt.docs_page))


def test_the_index_lists_the_pages_of_its_dataset(account: Account) -> None:
    receipts = [process(account, good_orders(2)), process(account, b""), process(account, b"a\n1\n", "incoming/x.csv")]
    entries = read_index(text_at(INDEX), "orders").entries
    assert [entry.status for entry in entries] == ["rejected", "published"]
    assert [f"docs/orders/{entry.page}" for entry in reversed(entries)] == [r.docs_page for r in receipts[:2]]
    assert len(read_index(text_at("docs/default/index.html"), "default").entries) == 1


def test_a_failure_to_make_the_page_does_not_prevent_publication(
    account: Account, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(_: Receipt) -> str:
        raise ValueError("card 4111 1111 1111 1111")

    monkeypatch.setattr(flows.pipeline.data_docs, "page_of", stumble)
    with caplog.at_level(logging.WARNING, logger="sluice"):
        receipt = process(account, good_orders(2))
    assert (receipt.status, receipt.docs_page) == (Status.PUBLISHED, None)
    assert account.keys("docs/") == []
    assert "the Data Docs page could not be written: ValueError" in caplog.text
    assert "4111" not in caplog.text


def test_an_index_that_cannot_be_written_leaves_the_receipt_as_it_is(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.pipeline.data_docs, "with_entries", lambda *_: 1 / 0)
    receipt = process(account, good_orders(2))
    assert read_receipt(account.parts.store, receipt.run_id) == receipt
    assert receipt.docs_page is not None


def test_a_change_is_made_again_on_top_of_what_another_worker_wrote_meanwhile(account: Account) -> None:
    store = account.parts.store
    interrupted: list[bool] = []

    def change(stored: str | None) -> str:
        if not interrupted:
            interrupted.append(True)
            change_text(store, "docs/x/index.html", lambda _: "theirs")
        return f"{stored} and ours"

    change_text(store, "docs/x/index.html", change)
    assert text_at("docs/x/index.html") == "theirs and ours"


def test_a_receipt_without_a_page_can_be_read() -> None:
    old = receipt_of(upload()).to_json().replace('"docs_page"', '"dropped_field"')
    lines = [line for line in old.splitlines() if "dropped_field" not in line]
    assert Receipt.from_json("\n".join(lines)).docs_page is None


def test_two_results_of_one_run_never_share_a_page() -> None:
    one, other = receipt_of(upload()), receipt_of(upload(), published=False)
    assert one.run_id == other.run_id
    assert flows.pipeline.data_docs.page_key(one) != flows.pipeline.data_docs.page_key(other)


def test_the_flow_runs_summary_names_the_page(account: Account) -> None:
    receipt = process(account, good_orders(1))
    links = ConsoleLinks("eu-central-1", PUBLISHED)
    assert f"prefix={receipt.docs_page}" in upload_summary(receipt, links)
    assert "Data Docs" not in upload_summary(receipt.model_copy(update={"docs_page": None}), links)
