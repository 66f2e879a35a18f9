"""Tests that a single upload is a live flow run on a real Prefect server, which shows its stages and lets a user cancel
it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED, temporary_settings

from flows.observability import heartbeats
from flows.observability.cancellation import Cancellation
from flows.observability.flow_run import FlowRunner
from flows.observability.recorder import Recorder
from flows.pipeline.attempts import Attempt
from flows.pipeline.errors import StageBroke, UploadCancelled
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.receipt import Chain, Receipt
from flows.pipeline.run import plainly, run_upload
from tests.chain.files import dirty_orders, good_orders
from tests.prefect.test_recorder import given_up, runs_of
from tests.prefect_server import PrefectServer
from tests.unit.flows.conftest import Account

MOST_REQUESTS = 13
TASK = "arn:aws:ecs:eu-central-1:123456789012:task/sluice-Cluster/0123456789abcdef"


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every HTTP request of this process is added, including those of Prefect's threads."""
    made: list[str] = []
    send, send_async = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

    def note(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        made.append(f"{request.method} {request.url.path}")
        return send(transport, request)

    async def note_async(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        made.append(f"{request.method} {request.url.path}")
        return await send_async(transport, request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", note)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", note_async)
    return made


def events_of(server: PrefectServer, receipt_or_attempt: Receipt | Attempt) -> list[str]:
    asked = {"filter": {"any_resource": {"id": [f"sluice.upload.{receipt_or_attempt.run_id}"]}}, "limit": 50}
    return [event["event"] for event in server.call("POST", "/events/filter", asked)["events"]]


def test_a_lone_upload_is_shown_with_its_stages_in_few_requests(
    account: Account, server: PrefectServer, requests: list[str]
) -> None:
    upload = account.upload("incoming/orders/monday.csv", dirty_orders(), "0101")
    account.process(account.upload("incoming/orders/warm.csv", good_orders(1)))  # else slow imports report progress
    with temporary_settings({PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False}):
        receipt = FlowRunner(account.parts).process(UploadJob(upload, Chain(task_arn=TASK, receive_count=1)))
    server.eventually(lambda: events_of(server, receipt))
    time.sleep(2)  # until the last log lines have been sent
    made = [one for one in requests if "/filter" not in one]
    assert len(made) <= MOST_REQUESTS, made
    (run,) = runs_of(server, upload)
    assert (run["state_name"], run["id"]) == ("Completed", receipt.chain.flow_run_id)
    assert {"orders", "published", "quarantined", "upload"} <= set(run["tags"])
    assert run["infrastructure_pid"].endswith(TASK)
    tasks = server.call("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert {task["name"] for task in tasks} == {"fetch", "refine", "publish", "record"}
    assert events_of(server, receipt) == ["sluice.upload.published"]


def test_a_failed_attempt_is_an_event_and_the_next_one_completes_the_same_run(
    account: Account, server: PrefectServer
) -> None:
    def broken(parts: Parts, job: UploadJob, *more: Any) -> Receipt:
        raise StageBroke("stage refine: KeyError at step.py:3")

    upload = account.upload("incoming/orders/tuesday.csv", good_orders(2), "0102")
    with pytest.raises(StageBroke):
        FlowRunner(account.parts, broken).process(UploadJob(upload, Chain(receive_count=1)))
    (run,) = runs_of(server, upload)
    assert (run["state_name"], "rejected" in run["tags"]) == ("Failed", False)
    receipt = FlowRunner(account.parts).process(UploadJob(upload, Chain(receive_count=2)))
    (run,) = runs_of(server, upload)
    assert run["state_name"] == "Completed"
    server.eventually(lambda: len(events_of(server, receipt)) == 2)
    assert set(events_of(server, receipt)) == {"sluice.upload.attempt-failed", "sluice.upload.published"}


def test_cancelling_a_run_stops_the_work_and_the_run_ends_as_cancelled(
    account: Account, server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test cancels as the UI does: it sets the run to Cancelling while a stage is running."""
    monkeypatch.setattr(heartbeats, "HEARTBEAT_SECONDS", 0.5)
    upload = account.upload("incoming/orders/endless.csv", good_orders(2), "0103")

    def endless(parts: Parts, job: UploadJob, call: Callable[..., Any] = plainly, *more: Any) -> Receipt:
        def slow(stage: Callable[..., Any], *values: Any) -> Any:
            if stage.__name__ != "refine":
                return call(stage, *values)

            def refine(*_: Any) -> None:
                time.sleep(60)

            return call(refine, *values)

        return run_upload(parts, job, slow, *more)

    def cancel() -> None:
        def running() -> str | None:
            runs = runs_of(server, upload)
            return str(runs[0]["id"]) if runs and runs[0]["state_type"] == "RUNNING" else None

        run_id = server.eventually(running)
        server.call("POST", f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})

    threading.Thread(target=cancel, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(UploadCancelled):
        FlowRunner(account.parts, endless).process(UploadJob(upload, Chain(receive_count=1)))
    assert time.monotonic() - began < 30
    (run,) = runs_of(server, upload)
    assert (run["state_type"], run["state_name"]) == ("CANCELLED", "Cancelled")
    assert account.receipt(upload) is None


@pytest.mark.parametrize("left", ["RUNNING", "CRASHED"])
def test_a_run_whose_task_was_killed_after_its_receipt_is_completed_at_the_next_delivery(
    account: Account, server: PrefectServer, left: str
) -> None:
    upload = account.upload(f"incoming/orders/{left.lower()}.csv", good_orders(2), "0104")
    first = FlowRunner(account.parts).process(UploadJob(upload, Chain(receive_count=1)))
    server.call("POST", f"/flow_runs/{first.chain.flow_run_id}/set_state", {"state": {"type": left}, "force": True})
    again = FlowRunner(account.parts).process(UploadJob(upload, Chain(receive_count=2)))
    (run,) = runs_of(server, upload)
    assert (run["state_name"], again) == ("Completed", first)
    assert StateType(run["state_type"]) is StateType.COMPLETED


def test_a_cancellation_between_stages_stops_the_next_stage() -> None:
    cancellation = Cancellation()
    with cancellation.stops():
        pass
    cancellation.ask()
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(UploadCancelled), cancellation.stops():
        raise AssertionError("no stage begins any more")


@pytest.fixture(autouse=True)
def _restore_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("state", ["CANCELLED", "CRASHED", "FAILED"])
def test_a_redriven_upload_continues_its_ended_run_at_the_first_delivery(
    account: Account, server: PrefectServer, state: str
) -> None:
    """The receive count of a redriven message starts at 1 again. No other process can be working on a run that has
    ended."""
    upload = account.upload(f"incoming/orders/redriven-{state}.csv", good_orders(2))
    Recorder(account.parts).record([given_up(upload)])
    (run,) = runs_of(server, upload)
    server.call("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": state}, "force": True})
    receipt = FlowRunner(account.parts).process(UploadJob(upload, Chain(receive_count=1)))
    assert receipt.chain.flow_run_id == run["id"]
    assert server.call("GET", f"/flow_runs/{run['id']}")["state_name"] == "Completed"
