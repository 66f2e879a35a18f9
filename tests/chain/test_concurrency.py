"""Tests of the limit on the number of uploads of a dataset that are processed at the same time. It applies to a burst
of uploads, but never prevents a file from being processed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from flows.refinery.contract.model import Contract
from lambda_trigger.message import UploadMessage
from tests.chain.chain import NAMES, Chain
from tests.chain.files import good_orders

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]
LIMIT = NAMES.limit("orders")


@pytest.fixture
def one_at_a_time(chain: Chain, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Set a limit of one concurrent upload for the orders, and yield the environment variables of tasks that use such a
    contract."""
    contract = chain.copy_contracts(tmp_path / "contracts") / "orders" / "contract.yaml"
    limited = yaml.safe_load(contract.read_text()) | {"max_concurrent_uploads": 1}
    contract.write_text(yaml.safe_dump(limited, sort_keys=False))
    # Delete and create the limit, because tasks that other tests killed hold slots until their leases end.
    httpx.delete(f"{chain.cloud.endpoints.prefect_api_url}/v2/concurrency_limits/{LIMIT}", timeout=30)
    chain.apply_limits([Contract(dataset="orders", max_concurrent_uploads=1)])
    yield {"SLUICE_CONTRACTS_FOLDER": str(tmp_path / "contracts")}
    chain.apply_limits([])


@contextmanager
def slot_taken(chain: Chain) -> Iterator[None]:
    """Hold the only slot, as a long upload of the dataset would."""
    body = {"names": [LIMIT], "slots": 1, "lease_duration": 600}
    lease = chain.call_prefect("POST", "/v2/concurrency_limits/increment-with-lease", body)["lease_id"]
    try:
        yield
    finally:
        chain.call_prefect("POST", "/v2/concurrency_limits/decrement-with-lease", {"lease_id": lease})


def limits(chain: Chain) -> dict[str, dict[str, Any]]:
    """Return the Prefect server's concurrency limits by name."""
    return {limit["name"]: limit for limit in chain.ask_prefect("v2/concurrency_limits")}


def is_waiting(chain: Chain, upload: UploadMessage) -> bool:
    """Return whether the upload's flow run has logged that it waits for a slot."""
    runs = [run["id"] for run in chain.flow_runs(upload)]
    lines = chain.ask_prefect("logs", logs={"flow_run_id": {"any_": runs}}) if runs else []
    return any("has no free slot" in line["message"] for line in lines)


def worked(chain: Chain, upload: UploadMessage) -> tuple[str, str]:
    """Return the times when the upload's first stage started and its last stage ended."""
    (run,) = chain.flow_runs(upload)
    tasks = chain.ask_prefect("task_runs", flow_runs={"id": {"any_": [run["id"]]}})
    return min(task["start_time"] for task in tasks), max(task["end_time"] for task in tasks)


def test_a_burst_on_a_dataset_with_one_slot_is_processed_one_by_one_and_completely(
    chain: Chain, one_at_a_time: dict[str, str]
) -> None:
    with chain.tasks_that(environment=one_at_a_time):
        with slot_taken(chain):
            burst = [chain.upload("incoming/orders/burst.csv", good_orders(3))]
            chain.wait_for(lambda: is_waiting(chain, burst[0]), "the first upload to wait", 120)
            # Upload in another window, which launches another task, so that both tasks work on an upload.
            window = chain.window()
            chain.wait_for(lambda: chain.window() > window, "the next window")
            burst += [chain.upload(f"incoming/orders/burst-{number}.csv", good_orders(3)) for number in range(3)]
            chain.wait_for(lambda: sum(is_waiting(chain, upload) for upload in burst) >= 2, "uploads to wait", 120)
            assert not any(chain.has_receipt(upload) for upload in burst)
        for upload in burst:
            assert chain.done(upload, 180).observed
    times = sorted(worked(chain, upload) for upload in burst)
    assert all(end <= next_start for (_, end), (next_start, _) in pairwise(times))
    chain.wait_for(lambda: limits(chain)[LIMIT]["active_slots"] == 0, "the last slot to be returned")


def test_a_slot_that_is_never_returned_does_not_stop_processing(chain: Chain, one_at_a_time: dict[str, str]) -> None:
    with slot_taken(chain):
        output = chain.cloud.run(["python", "-m", "tests.chain.two_runs", LIMIT], timeout_seconds=300)
    assert output.count("worked") == 2
    assert output.count("became free in time; continuing without one") == 2


def test_a_limit_that_no_contract_sets_any_more_is_deleted(chain: Chain) -> None:
    chain.apply_limits([Contract(dataset="gone", max_concurrent_uploads=1), Contract(dataset="unlimited")])
    assert limits(chain)[NAMES.limit("gone")]["limit"] == 1
    assert NAMES.limit("unlimited") not in limits(chain)
    chain.apply_limits([])
    assert NAMES.limit("gone") not in limits(chain)
