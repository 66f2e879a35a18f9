"""Tests of manual runs with parameters, in the process work pool that `make up` also serves."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.observability.display import ProgressBar
from flows.pipeline.receipt import Status
from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import good_orders, order, orders

pytestmark = [pytest.mark.cloud, pytest.mark.usefixtures("worker")]


@pytest.fixture(scope="module")
def processed(chain: Chain) -> dict[str, UploadMessage]:
    """Return published uploads by name, one for each test that processes one again."""
    uploads = {
        name: chain.upload(f"incoming/orders/{name}.csv", good_orders(2)) for name in ("again", "forced", "retry")
    }
    for upload in uploads.values():
        assert chain.done(upload).status is Status.PUBLISHED
    return uploads


def test_an_object_without_an_event_is_published_by_hand(chain: Chain) -> None:
    """The trigger ignores this folder, and the run's parameter names the contract."""
    upload = chain.upload("incoming/_archive/2025.csv", good_orders(4))
    run = chain.run_by_hand(key=upload.key, dataset="orders")
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Completed"), run["state"]
    receipt = chain.receipt(upload)
    assert receipt.rows.published == 4
    assert receipt.chain.flow_run_id == run["id"]


def test_running_a_published_upload_again_reports_that_and_changes_nothing(
    chain: Chain, processed: dict[str, UploadMessage]
) -> None:
    upload = processed["again"]
    before = chain.receipt(upload)
    run = _ended(chain, chain.schedule(bucket=upload.bucket, key=upload.key, version_id=upload.version_id))
    assert run["state"]["name"] == "Completed"
    assert chain.receipt(upload) == before


def test_a_forced_run_is_a_new_attempt_that_replaces_receipt_and_output(
    chain: Chain, processed: dict[str, UploadMessage]
) -> None:
    upload = processed["forced"]
    run = _ended(chain, chain.schedule(key=upload.key, version_id=upload.version_id, force=True))
    assert run["state"]["name"] == "Completed"
    receipt = chain.receipt(upload)
    assert receipt.attempt == 1
    assert [key for key in chain.keys("data/orders/") if upload.run_id in key] == [receipt.outputs[0].key]


def test_a_dry_run_shows_the_outcome_and_writes_nothing(chain: Chain) -> None:
    upload = chain.upload("incoming/_archive/dry.csv", good_orders(2))
    run = _ended(chain, chain.schedule(key=upload.key, dataset="orders", dry_run=True))
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Completed")
    assert not chain.has_receipt(upload)
    assert not [key for key in chain.keys("data/") if upload.run_id in key]


def test_a_manual_run_of_an_empty_file_rejects_it_and_ends_as_failed(chain: Chain) -> None:
    upload = chain.upload("incoming/_archive/empty.csv", b"")
    run = _ended(chain, chain.schedule(key=upload.key, dataset="orders"))
    assert (run["state"]["type"], run["state"]["name"]) == ("FAILED", "Failed")
    assert chain.receipt(upload).status is Status.REJECTED


def test_retry_on_a_published_run_is_a_new_attempt_in_the_same_run(
    chain: Chain, processed: dict[str, UploadMessage]
) -> None:
    """Prefect's Retry on a run that has ended processes the upload again."""
    upload = processed["retry"]
    (run,) = chain.flow_runs(upload)
    chain.cloud.run(["prefect", "flow-run", "retry", run["id"]], timeout_seconds=300)
    chain.wait_for(lambda: chain.receipt(upload).attempt == 1, "the second attempt's receipt")
    run = _ended(chain, run["id"])
    assert run["state"]["name"] == "Completed"
    assert len(chain.flow_runs(upload)) == 1
    assert [key for key in chain.keys("data/orders/") if upload.run_id in key] == [chain.receipt(upload).outputs[0].key]
    assert len(chain.artifacts("summary-orders", run["id"])) == 2, "the history of the dataset has both"


def test_a_field_of_the_contract_is_changed_for_one_run_only(chain: Chain) -> None:
    """The contract of the orders allows fewer bad rows than one in three."""
    bad = orders(order(1), order(2), order(3, quantity=0))
    strict, lenient = (
        chain.upload("incoming/_archive/strict.csv", bad),
        chain.upload("incoming/_archive/lenient.csv", bad),
    )
    changes = {"bad_rows": {"max_fraction": 0.5}}
    runs = [
        chain.schedule(key=strict.key, dataset="orders"),
        chain.schedule(key=lenient.key, dataset="orders", contract=changes),
    ]
    refused, published = (_ended(chain, run) for run in runs)
    assert (refused["state"]["name"], "rejected" in refused["tags"]) == ("Failed", True), refused["state"]
    assert published["state"]["name"] == "Completed", published["state"]
    hashes = [chain.receipt(upload).contract.content_hash for upload in (strict, lenient)]
    assert len(set(hashes)) == 2, "the receipt records another contract"


def test_wrong_parameters_end_in_a_failed_run_that_names_the_error(chain: Chain) -> None:
    key = chain.upload("incoming/_archive/2025.csv", good_orders(4)).key
    wrong: dict[str, dict[str, Any]] = {
        "does not exist": {"key": "incoming/_archive/nothing-here.csv"},
        "list-object-versions": {"key": key, "version_id": "00000000-0000-0000-0000-000000000000"},
        "orders": {"key": key, "dataset": "ordres"},
        "max_fractoin": {"key": key, "dataset": "orders", "contract": {"bad_rows": {"max_fractoin": 1}}},
    }
    runs = {says: chain.schedule(**parameters) for says, parameters in wrong.items()}
    for says, run_id in runs.items():
        run = _ended(chain, run_id)
        assert (run["state"]["type"], run["state"]["name"]) == ("FAILED", "Failed")
        assert says in run["state"]["message"]


def test_the_progress_of_a_long_file_is_an_artifact_that_is_updated(chain: Chain) -> None:
    seen: list[float] = []

    @flow(name="long-file", persist_result=False)
    def long_file() -> None:
        progress = ProgressBar(quiet_seconds=0)
        progress.expect("parcels", 1_000)
        for stage, rows in (("validate", 250), ("validate", 1_000), ("preprocess", 500)):
            progress.moved(stage, rows)
            seen.append(chain.artifacts("progress-parcels")[0]["data"])
        progress.done()

    with temporary_settings({PREFECT_API_URL: chain.cloud.endpoints.prefect_api_url}):
        long_file()
    (artifact,) = chain.artifacts("progress-parcels")
    assert [*seen, artifact["data"]] == [21.2, 70.0, 82.5, 100.0]


def _ended(chain: Chain, flow_run_id: str) -> dict[str, Any]:
    return chain.wait_for(partial(chain.final, flow_run_id), "the run to end")
