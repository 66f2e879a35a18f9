"""Tests that data is processed even if Prefect is down, is slow or rejects calls, or if a user changes a run's
state."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import pytest

from deployment.local.environment import clean_environment
from deployment.local.ports import HOST, free_port
from deployment.local.prefect_server import database, is_ready, server_environment, start_from_template
from deployment.local.services import Service
from tests.chain.chain import Chain
from tests.faults.bench import Bench, Case, Outcome
from tests.faults.catalogue import fault
from tests.faults.gateway import gateway_to
from tests.faults.saboteur import Sabotage
from tests.faults.step_contracts import GATE_VARIABLE, slow_contracts
from tests.forking import forking
from tests.restart import restart_prefect

pytestmark = pytest.mark.cloud
_AREA: Literal["Prefect"] = "Prefect"
_START_SECONDS = 90
_CANCEL_SECONDS, _LEAVE_SECONDS = 45, 20


def _set_state(bench: Bench, flow_run_id: str, kind: str, name: str) -> dict[str, Any]:
    """Set the state of a flow run as the UI does."""
    body = {"state": {"type": kind, "name": name}, "force": kind != "CANCELLING"}
    answer: dict[str, Any] = bench.chain.call_prefect("POST", f"/flow_runs/{flow_run_id}/set_state", body)
    return answer


def _flow_run(case: Case) -> dict[str, Any]:
    (run,) = case.bench.chain.flow_runs(case.upload)
    return run


# --- a server that is stopped and started again ------------------------------------------------------------------


@contextmanager
def _stopped(chain: Chain) -> Iterator[None]:
    """Stop the Prefect server until the context ends."""
    server = chain.cloud.prefect
    assert server is not None
    server.stop()
    try:
        yield
    finally:
        restart_prefect(chain.cloud)


@dataclass(frozen=True)
class Outage:
    """The outcomes of the uploads during a Prefect outage."""

    at_the_start: tuple[Case, Outcome]
    in_the_middle: tuple[Case, Outcome]


@pytest.fixture(scope="module")
def outage(bench: Bench) -> Outage:
    """Stop the server while a worker is running, run another worker, and start the server again."""
    middle, start = bench.case(), bench.case()
    hold, gate = middle.gate("s3.GetObject", "/incoming/")
    at_work = middle.start(hold)
    middle.held_at(gate)
    with _stopped(bench.chain):
        outcome = start.work()
        gate.touch()
    return Outage((start, outcome), (middle, at_work.ended(120)))


@fault(
    _AREA,
    "server down at the start",
    expected="processed; the receipt has observed: false; a task records its flow run once the server is back",
)
def test_without_a_prefect_server_data_is_processed_and_recorded_later(bench: Bench, outage: Outage) -> None:
    case, outcome = outage.at_the_start
    assert outcome.exit_code == 0
    assert case.kept_promises().observed is False

    def runs() -> list[dict[str, Any]]:
        assert case.work().exit_code == 0  # takes over a batch note once that is older than the visibility timeout
        return bench.chain.flow_runs(case.upload)

    (run,) = bench.chain.wait_for(runs, "a task to record the flow run")
    assert run["state"]["name"] == "Completed"


@fault(_AREA, "server down during processing, then up again", expected="processing continues; published once, exit 0")
def test_a_server_that_restarts_in_the_middle_does_not_disturb_the_work(outage: Outage) -> None:
    case, outcome = outage.in_the_middle
    assert outcome.exit_code == 0
    assert case.kept_promises().chain.flow_run_id == _flow_run(case)["id"]


@pytest.mark.slow  # because Prefect's client retries for a long time
@fault(_AREA, "server down during processing, permanently", expected="processing continues; published once, exit 0")
def test_a_server_that_fails_in_the_middle_does_not_stop_the_work(bench: Bench) -> None:
    case = bench.case()
    hold, gate = case.gate("s3.GetObject", "/incoming/")
    worker = case.start(hold)
    case.held_at(gate)
    with _stopped(bench.chain):
        gate.touch()
        assert worker.ended(120).exit_code == 0
    case.kept_promises()


# --- a server that rejects calls or is slow ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded_server(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the API URL of a Prefect server whose password the workers do not have."""
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    home = folder / "prefect"
    start_from_template(home, bench.chain.cloud.cache_dir)
    (folder / "tmp").mkdir()
    server = Service(
        name="guarded Prefect server",
        command=[sys.executable, "-m", "deployment.local.serve_prefect", str(port)],
        environment=clean_environment(folder, folder / "tmp")
        | server_environment(home, port)
        | {"PREFECT_SERVER_API_AUTH_STRING": "operator:known-to-nobody"},
        log_path=folder / "prefect.log",
        records=folder / "processes",
    )
    with forking():
        server.start()
    api = f"http://{HOST}:{port}/api"
    try:
        server.wait_until(lambda: is_ready(home, port, "operator:known-to-nobody"), _START_SECONDS)
        yield api
    finally:
        server.stop()


@fault(_AREA, "server rejects authentication", expected="processed; the receipt has observed: false")
def test_a_server_that_rejects_the_credentials_does_not_stop_processing(bench: Bench, guarded_server: str) -> None:
    assert httpx.post(f"{guarded_server}/deployments/filter", json={}, timeout=30).status_code == 401
    case = bench.case()
    assert case.work(environment={"PREFECT_API_URL": guarded_server}).exit_code == 0
    assert case.kept_promises().observed is False


@fault(_AREA, "server slow", expected="processed and observed")
def test_a_slow_server_still_shows_the_run(bench: Bench) -> None:
    case = bench.case()
    with gateway_to(bench.chain.cloud.endpoints.prefect_api_url) as gateway:
        gateway.delay_seconds = 0.2
        assert case.work(environment={"PREFECT_API_URL": gateway.url}).exit_code == 0
    assert case.kept_promises().observed is True
    assert _flow_run(case)["state"]["name"] == "Completed"


@fault(
    _AREA, "server rejects one upload's flow run", expected="that upload is processed unobserved; the next is observed"
)
def test_a_server_that_rejects_one_flow_run_is_used_for_the_next(bench: Bench) -> None:
    case, other = bench.case(), bench.case(deliver=False)
    case.send(other.upload.to_json())
    with gateway_to(bench.chain.cloud.endpoints.prefect_api_url) as gateway:
        gateway.refuse_next = "/create_flow_run"
        assert case.work(environment={"PREFECT_API_URL": gateway.url}).exit_code == 0
    assert [case.kept_promises().observed, other.receipt().observed].count(True) == 1


@pytest.mark.slow  # because Prefect's client retries for a long time
@fault(_AREA, "server's database locked", expected="processed, observed or not; published once")
def test_a_locked_database_does_not_stop_processing(bench: Bench) -> None:
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
    "server returns 503 while several files arrive",
    expected="each file is processed; once the server is back, each is recorded in exactly one flow run",
)
def test_a_busy_server_neither_stops_processing_nor_loses_a_run(bench: Bench) -> None:
    case = bench.case()
    others = [bench.case(deliver=False) for _ in range(4)]
    for other in others:
        case.send(other.upload.to_json())
    uploads = [case.upload, *(other.upload for other in others)]
    chain = bench.chain
    with gateway_to(chain.cloud.endpoints.prefect_api_url) as gateway:
        gateway.is_busy = True
        environment = {"PREFECT_API_URL": gateway.url}
        assert case.work(environment=environment).exit_code == 0
        assert [chain.receipt(upload).observed for upload in uploads] == [False] * len(uploads)
        gateway.is_busy = False

        def shown() -> bool:
            assert case.work(environment=environment).exit_code == 0  # takes over batch notes that are old enough
            return all(chain.flow_runs(upload) for upload in uploads)

        chain.wait_for(shown, "a task to record what the server did not take", 120)
    runs = [chain.flow_runs(upload) for upload in uploads]
    assert [[run["state"]["name"] for run in found] for found in runs] == [["Completed"]] * len(uploads)


_REFUSED = Sabotage(on="sqs.SendMessage", do="refuse", code="AccessDenied", status=403, times=2)


@pytest.mark.slow  # because only a heartbeat notices the cancellation
@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(
            [],
            marks=fault(
                _AREA,
                "flow run cancelled from the UI while a step does not end",
                expected="the work stops within 45 seconds; nothing is published, the run is Cancelled, "
                "and the message is in the dead-letter queue",
            ),
        ),
        pytest.param(
            [_REFUSED],
            marks=fault(
                _AREA,
                "flow run cancelled from the UI, and the dead-letter queue rejects the message twice",
                expected="the upload stays cancelled: the message is delivered again, is not processed, and is moved",
            ),
        ),
    ],
)
def test_a_cancelled_flow_run_stops_the_work(bench: Bench, plan: list[Sabotage]) -> None:
    case = bench.case()
    gate = case.folder / "step.gate"
    worker = case.start(*plan, environment=slow_contracts(case.copy_contracts()) | {GATE_VARIABLE: str(gate)})
    case.held_at(gate)
    _set_state(bench, _flow_run(case)["id"], "CANCELLING", "Cancelling")
    worker.ended(_CANCEL_SECONDS + _LEAVE_SECONDS)
    assert not bench.chain.has_receipt(case.upload)
    assert case.count() == {"waiting": 0, "held": 0}
    assert sum(case.count(case.dead_letter_url).values()) == 1
    run = _flow_run(case)
    assert (run["state"]["name"], "given-up" in run["tags"]) == ("Cancelled", True)


@fault(
    _AREA,
    "flow run cancelled from the UI when the work is nearly done",
    expected="the display follows the data: the upload is published, and its flow run shows that",
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
    assert _flow_run(case)["state"]["name"] == "Completed"


@fault(
    _AREA, "flow run retried from the UI while the pipeline also retries", expected="published once, in either order"
)
def test_a_retry_from_the_ui_and_one_of_the_pipeline_publish_once(bench: Bench) -> None:
    case, chain = bench.case(), bench.chain
    hold, gate = case.gate("s3.PutObject", "/data/")
    first = case.start(hold)
    case.held_at(gate)
    first.process.kill()
    run = _flow_run(case)
    _set_state(bench, run["id"], "CRASHED", "Crashed")
    with chain.worker():
        _set_state(bench, run["id"], "SCHEDULED", "AwaitingRetry")  # the worker of the pool picks up the run
        case.send()  # the pipeline delivers the message again
        assert case.work().exit_code == 0
        chain.wait_for(lambda: _at_rest(case), "the retried run to end", 90)
        # The message that the killed worker held is delivered again, unless the second worker has already received it.
        chain.wait_for(lambda: case.count()["held"] == 0, "nobody to hold a message any more")
        assert case.work().exit_code == 0
        # The worker may start a run that the pipeline has just finished. It then finds the receipt and also ends.
        chain.wait_for(lambda: _at_rest(case), "nobody to be at work any more", 90)
    case.kept_promises()
    assert _flow_run(case)["state"]["name"] == "Completed"


def _at_rest(case: Case) -> bool:
    """Return whether the flow run has ended and the work pool's worker executes no run."""
    return case.bench.chain.pool_is_idle() and _flow_run(case)["state"]["type"] in ("COMPLETED", "FAILED")
