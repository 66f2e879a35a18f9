"""Tests that Prefect's UI in a real browser shows what happened to uploads, and lets a user start and retry runs."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from deployment.local.pipeline import WORK_POOL
from flows.pipeline.receipt import Status
from lambda_trigger.message import UploadMessage
from tests.browser.control_room import ControlRoom
from tests.chain.chain import Chain
from tests.chain.files import dirty_orders

pytestmark = pytest.mark.browser
_ENDS_MS = 60_000


@pytest.fixture(scope="module")
def published(chain: Chain) -> UploadMessage:
    """Upload a file that is published except for two rows, which are quarantined."""
    upload = chain.upload("incoming/orders/seen.csv", dirty_orders())
    assert chain.done(upload).status is Status.PUBLISHED
    return upload


@pytest.fixture(scope="module")
def rejected(chain: Chain) -> UploadMessage:
    """Upload an empty file, which is rejected."""
    upload = chain.upload("incoming/orders/refused.csv", b"")
    assert chain.done(upload).status is Status.REJECTED
    return upload


def test_the_list_distinguishes_published_from_rejected_runs(
    room: ControlRoom, published: UploadMessage, rejected: UploadMessage
) -> None:
    room.open_runs()
    expect(room.listed("seen.csv")).to_contain_text("Completed")
    expect(room.listed("seen.csv")).to_contain_text("quarantined")
    expect(room.listed("refused.csv")).to_contain_text("Failed")
    expect(room.listed(published.run_id[:8])).to_contain_text("orders")
    expect(room.listed(rejected.run_id[:8])).to_contain_text("rejected")


def test_the_filters_by_state_find_published_and_rejected_runs(
    room: ControlRoom, published: UploadMessage, rejected: UploadMessage
) -> None:
    """The filters know only Prefect's built-in state names, such as Completed and Failed."""
    room.open_runs("Completed")
    expect(room.listed(published.run_id[:8])).to_contain_text("seen.csv")
    expect(room.listed(rejected.run_id[:8])).to_have_count(0)
    room.open_runs("Failed")
    expect(room.listed(rejected.run_id[:8])).to_contain_text("refused.csv")
    expect(room.listed(published.run_id[:8])).to_have_count(0)


def test_a_published_run_shows_its_log_its_summary_and_its_checks(room: ControlRoom, published: UploadMessage) -> None:
    room.open_run("seen.csv")
    room.wait_for_log("9 rows published, 2 quarantined, 1 dropped")
    room.open_artifact("summary")
    room.wait_for_text(f"receipts/{published.run_id}.json")
    room.wait_for_text("expect_column_values_to_be_between(quantity)")


def test_a_rejected_run_shows_the_reason(room: ControlRoom, rejected: UploadMessage) -> None:
    room.open_run("refused.csv")
    expect(room.state()).to_have_text("Failed")
    room.open_artifact("summary")
    room.wait_for_text("the file is empty (0 bytes)")


def test_a_datasets_artifacts_have_a_history(
    room: ControlRoom, published: UploadMessage, rejected: UploadMessage
) -> None:
    room.open_history("summary-orders")
    room.wait_for_text(published.run_id[:8])
    room.wait_for_text(rejected.run_id[:8])


def test_a_block_shows_its_purpose_and_its_settings(room: ControlRoom, chain: Chain) -> None:
    room.open_block("sluice")
    room.wait_for_text("Runs that a person starts read the block of their stack")
    room.wait_for_text(chain.outputs["QueueUrl"])
    room.wait_for_text(chain.outputs["LandingBucket"])


def test_the_automations_show_what_they_watch_and_do(room: ControlRoom) -> None:
    room.open_automations()
    room.wait_for_text("Sluice: a run without a heartbeat has crashed (sluice)")
    room.wait_for_text("Runs send a heartbeat every 30 seconds")
    room.wait_for_text("Sluice: a run crashed")
    room.wait_for_text("explain-crash")


def test_a_custom_run_with_changed_parameters_finishes(
    room: ControlRoom, chain: Chain, published: UploadMessage
) -> None:
    deployment = chain.call_prefect("GET", "/deployments/name/process-upload/sluice")
    assert deployment["work_pool_name"] == WORK_POOL
    before = chain.receipt(published)
    room.open_custom_run(deployment["id"])
    room.wait_for_text("Validate and preprocess the file, but write nothing.")
    room.field("key").fill(published.key)
    room.switch("dry_run").click()
    room.submit()

    def finished() -> str | None:
        of_dry_runs = {"tags": {"all_": ["dry-run"]}}
        runs = chain.ask_prefect("flow_runs", sort="EXPECTED_START_TIME_DESC", limit=1, flow_runs=of_dry_runs)
        return str(runs[0]["id"]) if runs and runs[0]["state"]["type"] == "COMPLETED" else None

    room.open_run_of_id(chain.wait_for(finished, "the custom run to finish"))
    expect(room.state()).to_have_text("Completed", timeout=_ENDS_MS)
    room.open_runs("Completed")
    expect(room.listed("dry-run")).to_contain_text("seen.csv")
    assert chain.receipt(published) == before


def test_retry_processes_a_rejected_file_again_in_the_same_run(
    room: ControlRoom, chain: Chain, rejected: UploadMessage
) -> None:
    room.open_run("refused.csv")
    room.retry()
    chain.wait_for(lambda: chain.receipt(rejected).attempt == 1, "the second attempt's receipt")
    (run,) = chain.flow_runs(rejected)
    room.open_run_of_id(run["id"])
    expect(room.state()).to_have_text("Failed", timeout=_ENDS_MS)
