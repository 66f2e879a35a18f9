"""Runs that a person starts, with parameters, through the process work pool that `make up` serves."""

from __future__ import annotations

import pytest

from flows.refinery.publishing.receipt import Status
from tests.chain.chain import Chain
from tests.chain.files import good_orders

pytestmark = pytest.mark.cloud


def test_an_object_that_no_event_told_of_is_published_by_hand(chain: Chain) -> None:
    """It lies outside of the watched prefix, and is judged by the contract that the person names."""
    upload = chain.upload("archive/2025.csv", good_orders(4))
    run = chain.run_by_hand(key=upload.key, dataset="orders")
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Published"), run["state"]
    receipt = chain.receipt(upload)
    assert receipt.rows.published == 4
    assert receipt.chain.flow_run_id == run["id"]
    assert chain.execution(upload) is None


def test_a_published_upload_run_again_says_so_and_changes_nothing(chain: Chain) -> None:
    upload = chain.upload("incoming/orders/again.csv", good_orders(2))
    chain.ended(upload)
    before = chain.receipt(upload)
    run = chain.run_by_hand(bucket=upload.bucket, key=upload.key, version_id=upload.version_id)
    assert run["state"]["name"] == "Published"
    assert chain.receipt(upload) == before


def test_a_forced_run_is_a_new_attempt_that_replaces_receipt_and_output(chain: Chain) -> None:
    upload = chain.upload("incoming/orders/forced.csv", good_orders(2))
    chain.ended(upload)
    run = chain.run_by_hand(key=upload.key, version_id=upload.version_id, force=True)
    assert run["state"]["name"] == "Published"
    receipt = chain.receipt(upload)
    assert receipt.attempt == 1
    assert [key for key in chain.keys("data/orders/") if upload.run_id in key] == [receipt.outputs[0].key]


def test_a_dry_run_tells_the_outcome_and_writes_nothing(chain: Chain) -> None:
    upload = chain.upload("archive/dry.csv", good_orders(2))
    run = chain.run_by_hand(key=upload.key, dataset="orders", dry_run=True)
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Dry run")
    assert not chain.has_receipt(upload)
    assert not [key for key in chain.keys("data/") if upload.run_id in key]


def test_a_rejected_file_run_by_hand_is_rejected_there_too(chain: Chain) -> None:
    upload = chain.upload("archive/empty.csv", b"")
    run = chain.run_by_hand(key=upload.key, dataset="orders")
    assert (run["state"]["type"], run["state"]["name"]) == ("FAILED", "Rejected: empty file")
    assert chain.receipt(upload).status is Status.REJECTED


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"key": "archive/nothing-here.csv"}, "does not exist"),
        ({"key": "archive/2025.csv", "dataset": "ordres"}, "orders"),
    ],
)
def test_wrong_parameters_end_in_a_failed_run_that_says_what_is_wrong(
    chain: Chain, parameters: dict[str, object], says: str
) -> None:
    chain.upload("archive/2025.csv", good_orders(4))
    run = chain.run_by_hand(**parameters)
    assert run["state"]["type"] == "FAILED"
    assert says in run["state"]["message"]
