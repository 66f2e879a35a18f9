"""What happens when Prefect is away, slow, refusing, or told something else by a person: the data goes on."""

from __future__ import annotations

import sqlite3
from typing import Any, Literal

import httpx
import pytest

from deployment.local.prefect_server import database
from tests.faults.bench import Bench, Case
from tests.faults.catalogue import fault
from tests.faults.gateway import gateway_to

pytestmark = pytest.mark.cloud
_AREA: Literal["Prefect"] = "Prefect"
_NOBODY = "http://127.0.0.1:9/api"  # the discard port, where nobody listens


def _set_state(bench: Bench, flow_run_id: str, kind: str, name: str) -> dict[str, Any]:
    """Set a flow run's state as the UI does."""
    answer = httpx.post(
        f"{bench.chain.cloud.prefect_api_url}/flow_runs/{flow_run_id}/set_state",
        json={"state": {"type": kind, "name": name}, "force": kind != "CANCELLING"},
        timeout=30,
    )
    answer.raise_for_status()
    said: dict[str, Any] = answer.json()
    return said


def _flow_run(case: Case) -> dict[str, Any]:
    (run,) = case.bench.chain.flow_runs(case.upload)
    return run


@fault(_AREA, "server down at the start", expected="processed; the receipt says observed: false")
def test_without_a_prefect_server_data_is_processed_unobserved(bench: Bench) -> None:
    case = bench.case()
    assert case.work(environment={"PREFECT_API_URL": _NOBODY}).exit_code == 0
    assert case.kept_promises().observed is False
    assert bench.chain.flow_runs(case.upload) == []


@fault(_AREA, "refusing authentication", expected="processed; the receipt says observed: false")
def test_a_server_that_refuses_us_does_not_hold_data_back(bench: Bench) -> None:
    case = bench.case()
    with gateway_to(bench.chain.cloud.prefect_api_url) as gateway:
        gateway.status = 401
        assert case.work(environment={"PREFECT_API_URL": gateway.url}).exit_code == 0
        assert gateway.requests > 0
    assert case.kept_promises().observed is False


@fault(_AREA, "server slow", expected="processed and observed, later")
def test_a_slow_server_shows_the_run_all_the_same(bench: Bench) -> None:
    case = bench.case()
    with gateway_to(bench.chain.cloud.prefect_api_url) as gateway:
        gateway.delay_seconds = 0.2
        assert case.work(environment={"PREFECT_API_URL": gateway.url}).exit_code == 0
    assert case.kept_promises().observed is True
    assert _flow_run(case)["state"]["name"] == "Published"


@pytest.mark.slow  # Prefect's client is patient
@fault(_AREA, "server down in the middle", expected="the work goes on; published once, exit 0")
def test_a_server_that_goes_away_in_the_middle_does_not_stop_the_work(bench: Bench) -> None:
    case = bench.case()
    hold, gate = case.gate("s3.GetObject", "/incoming/")
    with gateway_to(bench.chain.cloud.prefect_api_url) as gateway:
        worker = case.start(hold, environment={"PREFECT_API_URL": gateway.url})
        case.held_at(gate)
        gateway.dead = True
        gate.touch()
        assert worker.ended(120).exit_code == 0
    case.kept_promises()


@pytest.mark.slow  # Prefect's client is patient
@fault(_AREA, "its database locked", expected="processed, observed or not; published once")
def test_a_locked_database_does_not_hold_data_back(bench: Bench) -> None:
    case = bench.case()
    lock = sqlite3.connect(database(bench.chain.cloud.state_dir / "prefect"), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        outcome = case.start().ended(120)
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    assert outcome.exit_code == 0
    case.kept_promises()


@fault(
    _AREA,
    "flow run cancelled from the UI",
    expected="the display follows the data: the upload is published, and its flow run says so",
)
def test_a_cancelled_flow_run_does_not_lose_its_upload(bench: Bench) -> None:
    case = bench.case()
    hold, gate = case.gate("s3.GetObject", "/incoming/")
    worker = case.start(hold)
    case.held_at(gate)
    _set_state(bench, _flow_run(case)["id"], "CANCELLING", "Cancelling")
    gate.touch()
    assert worker.ended().exit_code == 0
    case.kept_promises()
    assert _flow_run(case)["state"]["name"] == "Published"


@fault(_AREA, "flow run retried from the UI while the chain also retries", expected="published once, whoever is first")
def test_a_retry_from_the_ui_and_one_of_the_chain_publish_once(bench: Bench) -> None:
    case = bench.case()
    hold, gate = case.gate("s3.PutObject", "/data/")
    first = case.start(hold)
    case.held_at(gate)
    first.process.kill()
    run = _flow_run(case)
    _set_state(bench, run["id"], "CRASHED", "Crashed")
    _set_state(bench, run["id"], "SCHEDULED", "AwaitingRetry")  # the pool's worker takes it
    case.send()  # the chain delivers the message again
    assert case.work().exit_code == 0
    chain = bench.chain
    chain.wait_for(lambda: _flow_run(case)["state"]["type"] in ("COMPLETED", "FAILED"), "the retried run to end", 60)
    case.wait_until_visible()  # the killed worker's delivery
    assert case.work().exit_code == 0
    case.kept_promises()
    assert _flow_run(case)["state"]["name"] == "Published"
