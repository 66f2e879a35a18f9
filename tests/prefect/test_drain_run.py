"""Tests that a drain gets a flow run as soon as it processes a second upload, and that uploads do not wait for it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from deployment.local.ports import free_port
from flows.observability import heartbeats
from flows.observability.drain_run import DrainRun
from flows.pipeline.attempts import Attempt
from flows.pipeline.errors import StageBroke
from flows.pipeline.job import TaskIdentity
from flows.pipeline.receipt import Rows
from tests.prefect_server import PrefectServer
from tests.unit.flows.conftest import Account
from tests.unit.flows.pipeline.receipts import receipt_of, upload

TASK = TaskIdentity(task_arn="arn:aws:ecs:eu-central-1:123456789012:task/sluice-Cluster/0123456789abcdef")


def artifacts_of(server: PrefectServer, run: DrainRun) -> dict[str, dict[str, Any]]:
    wanted = {"artifacts": {"flow_run_id": {"any_": [run.flow_run_id]}}}
    return {found["key"]: found for found in server.call("POST", "/artifacts/filter", wanted)}


def failed_attempt() -> Attempt:
    return Attempt.of(upload(9), StageBroke("broke"), dataset="parcels", receive_count=1, task_arn=None)


def test_a_drain_shows_how_far_it_is_and_ends_with_a_table(account: Account, server: PrefectServer) -> None:
    run = DrainRun(account.parts, TASK, waiting=lambda: 2, update_seconds=0.2)
    run.count([receipt_of(upload(1))], [])
    time.sleep(1)
    assert run.flow_run_id is None, "a lone upload has its own run"
    run.count([receipt_of(upload(2), published=False)], [])
    artifacts = server.eventually(lambda: artifacts_of(server, run) if run.flow_run_id else None)
    assert artifacts["progress-sluice"]["data"] == 50.0
    flow_run = server.call("GET", f"/flow_runs/{run.flow_run_id}")
    assert flow_run["state_type"] == "RUNNING"
    assert {"drain", "stack:sluice"} <= set(flow_run["tags"])
    quarantined = receipt_of(upload(3), rows=Rows(rows_in=12, published=10, quarantined={"not_null(a)": 2}))
    run.count([quarantined], [failed_attempt()])
    run.end()
    flow_run = server.call("GET", f"/flow_runs/{run.flow_run_id}")
    assert (flow_run["state_name"], flow_run["state"]["message"].split(" in ")[0]) == (
        "Completed",
        "2 published, 1 rejected, 1 failed",
    )
    orders, parcels = json.loads(artifacts_of(server, run)["drain-sluice"]["data"])
    assert (orders["dataset"], orders["published"], orders["rejected"], orders["rows quarantined"]) == (
        "orders",
        2,
        1,
        "2",
    )
    assert (parcels["dataset"], parcels["failed tries"]) == ("parcels", 1)


def test_a_drain_sends_heartbeats_so_that_one_that_is_killed_is_noticed(
    account: Account, server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "HEARTBEAT_SECONDS", 0.2)
    run = DrainRun(account.parts, TASK, waiting=lambda: 0, update_seconds=0.1)
    run.count([receipt_of(upload(1)), receipt_of(upload(2))], [])

    def beats() -> list[dict[str, Any]]:
        if not run.flow_run_id:
            return []
        asked = {"filter": {"any_resource": {"id": [f"prefect.flow-run.{run.flow_run_id}"]}}, "limit": 50}
        events = server.call("POST", "/events/filter", asked)["events"]
        return [event for event in events if event["event"] == "prefect.flow-run.heartbeat"]

    beat, *_ = server.eventually(beats)
    run.end()
    assert {one.get("prefect.resource.name") for one in beat["related"]} >= {"drain-queue"}
    assert {one["prefect.resource.id"] for one in beat["related"]} >= {"prefect.tag.stack:sluice"}


def test_without_prefect_a_drain_continues(account: Account) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/api"
    with temporary_settings({PREFECT_API_URL: nobody, PREFECT_CLIENT_MAX_RETRIES: 0}):
        run, began = DrainRun(account.parts, TASK, waiting=lambda: 0, update_seconds=0.1), time.monotonic()
        run.count([receipt_of(upload(1)), receipt_of(upload(2))], [])
        run.end()
    assert time.monotonic() - began < 6
