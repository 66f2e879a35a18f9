"""Tests that uploads that were processed without Prefect are recorded from their receipts, each as one flow run."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from deployment.local.ports import free_port
from flows.observability.recorded_run import GIVEN_UP, LARGE_BYTES
from flows.observability.recorder import RUNS_PER_CALL, Recorder
from flows.pipeline.attempts import Attempt
from flows.pipeline.errors import StageBroke
from flows.pipeline.receipt import Chain, Receipt
from lambda_trigger.message import UploadMessage
from tests.faults.gateway import gateway_to
from tests.prefect_server import PrefectServer
from tests.unit.flows.conftest import Account
from tests.unit.flows.pipeline.receipts import receipt_of, upload

_NUMBERS = count(1_000)


def new_upload(**fields: Any) -> UploadMessage:
    """Return an upload that no other test has recorded on the shared server."""
    return upload(next(_NUMBERS), **fields)


def runs_of(server: PrefectServer, *uploads: UploadMessage) -> list[dict[str, Any]]:
    keys = [f"{one.run_id}-{one.attempt}" if one.attempt else one.run_id for one in uploads]
    found: list[dict[str, Any]] = server.call(
        "POST", "/flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": keys}}}
    )
    return found


def log_of(server: PrefectServer, run: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.call("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    return found


def artifacts_of(server: PrefectServer, run: dict[str, Any]) -> list[dict[str, Any]]:
    wanted = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    found: list[dict[str, Any]] = server.call("POST", "/artifacts/filter", wanted)
    return found


def existing(server: PrefectServer, message: UploadMessage, state: str, *tags: str) -> str:
    """Create a live flow run for an upload, in the given state, and return the run's ID."""
    deployment = server.call("GET", "/deployments/name/process-upload/sluice")["id"]
    run = {"name": "live", "idempotency_key": message.run_id, "tags": list(tags), "state": {"type": state}}
    return str(server.call("POST", f"/deployments/{deployment}/create_flow_run", run)["id"])


def given_up(message: UploadMessage) -> Attempt:
    error = StageBroke("stage refine: KeyError at step.py:3")
    return Attempt.of(message, error, dataset="orders", receive_count=5, task_arn=None, given_up=True)


@pytest.fixture
def recorder(account: Account, server: PrefectServer) -> Recorder:
    return Recorder(account.parts)


def test_a_receipt_becomes_one_flow_run_with_the_actual_times(server: PrefectServer, recorder: Recorder) -> None:
    message = new_upload(key="incoming/orders/seen.csv")
    receipt = receipt_of(
        message, timings_seconds={"fetch": 1.0, "refine": 2.0}, created_at="2026-01-01T10:00:03.000000Z"
    )
    assert recorder.record([receipt]) == {message.run_id}
    (run,) = runs_of(server, message)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Completed")
    assert run["name"] == f"orders / seen.csv {message.run_id[:8]}"
    assert run["parameters"] == {"bucket": "landing", "key": message.key, "version_id": message.version_id}
    assert {"orders", "upload", "published"} <= set(run["tags"])
    assert run["state"]["message"].startswith("10 rows published")
    assert run["labels"]["sluice.started"].startswith("2026-01-01T10:00:00")
    assert run["labels"]["sluice.ended"].startswith("2026-01-01T10:00:03")
    lines = log_of(server, run)
    assert [datetime.fromisoformat(line["timestamp"]) for line in (lines[0], lines[-1])] == [
        datetime(2026, 1, 1, 10, 0, 0, tzinfo=UTC),
        datetime(2026, 1, 1, 10, 0, 3, tzinfo=UTC),
    ]
    assert not artifacts_of(server, run), "a small file that was published has none"


@pytest.mark.parametrize("kind", ["rejected", "forced", "large"])
def test_a_rejected_forced_or_large_upload_has_its_own_summary(
    server: PrefectServer, recorder: Recorder, kind: str
) -> None:
    message = new_upload(attempt=1 if kind == "forced" else 0)
    receipt = receipt_of(message, published=kind != "rejected")
    if kind == "large":
        source = receipt.source.model_copy(update={"size_bytes": LARGE_BYTES})
        receipt = receipt.model_copy(update={"source": source})
    recorder.record([receipt])
    (run,) = runs_of(server, message)
    (artifact,) = artifacts_of(server, run)
    assert artifact["key"] == "summary-orders"
    assert receipt.run_id in artifact["data"]


def test_more_uploads_than_one_call_takes_are_all_recorded_and_recording_again_changes_nothing(
    account: Account, server: PrefectServer, recorder: Recorder
) -> None:
    messages = [new_upload() for _ in range(RUNS_PER_CALL + 5)]
    receipts = [receipt_of(message) for message in messages]
    wanted = {message.run_id for message in messages}
    assert recorder.record([*receipts, receipts[0]]) == wanted
    assert len(runs_of(server, *messages)) == len(messages)
    assert Recorder(account.parts).record(receipts) == wanted, "another task"
    assert len(runs_of(server, *messages)) == len(messages)


def test_uploads_with_unusual_keys_are_recorded_together(server: PrefectServer, recorder: Recorder) -> None:
    names = ["a b+c%2F.csv", "é\u2028\n\t.csv", "🐧" * 253, '{{ ctx }} {"__prefect_kind": "jinja"}', "a\0b.csv"]
    uploads = [new_upload(key=f"incoming/orders/{name}") for name in names]
    assert recorder.record([receipt_of(upload) for upload in uploads]) == {upload.run_id for upload in uploads}
    runs = {run["idempotency_key"]: run for run in runs_of(server, *uploads)}
    shown = [runs[upload.run_id]["parameters"]["key"] for upload in uploads]
    assert shown == [upload.key.replace("\0", "\ufffd") for upload in uploads], "PostgreSQL stores no NUL"
    assert all(log_of(server, run) for run in runs.values())


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CRASHED", "FAILED"])
def test_a_run_that_its_task_left_behind_gets_the_outcome_of_the_receipt(
    server: PrefectServer, recorder: Recorder, state: str
) -> None:
    message = new_upload()
    flow_run_id = existing(server, message, state)
    recorder.record([receipt_of(message, chain=Chain(flow_run_id=flow_run_id))])
    (run,) = runs_of(server, message)
    assert (run["id"], run["state_type"]) == (flow_run_id, "COMPLETED")
    assert "published" in run["tags"]
    assert log_of(server, run)


def test_a_failed_run_of_a_file_that_was_rejected_later_shows_the_rejection(
    server: PrefectServer, recorder: Recorder
) -> None:
    message = new_upload()
    existing(server, message, "FAILED")
    recorder.record([receipt_of(message, published=False)])
    (run,) = runs_of(server, message)
    assert "rejected" in run["tags"]
    assert run["state"]["message"].startswith("the file is empty")


def test_a_run_that_already_shows_its_receipt_stays_as_it_is(server: PrefectServer, recorder: Recorder) -> None:
    message = new_upload()
    flow_run_id = existing(server, message, "COMPLETED", "published")
    assert recorder.record([receipt_of(message, chain=Chain(flow_run_id=flow_run_id))]) == {message.run_id}
    (run,) = runs_of(server, message)
    assert "orders" not in run["tags"]
    assert not log_of(server, run)


def test_a_live_run_that_was_deleted_is_recorded_as_a_new_one(server: PrefectServer, recorder: Recorder) -> None:
    message = new_upload()
    assert recorder.record([receipt_of(message, chain=Chain(flow_run_id=str(uuid4())))]) == {message.run_id}
    assert len(runs_of(server, message)) == 1


def test_an_upload_that_was_given_up_on_is_a_failed_run_with_the_reason(
    server: PrefectServer, recorder: Recorder
) -> None:
    message = new_upload()
    assert recorder.record([given_up(message)]) == {message.run_id}
    (run,) = runs_of(server, message)
    assert (run["state_name"], GIVEN_UP in run["tags"]) == ("Failed", True)
    assert "StageBroke: stage refine" in run["state"]["message"]
    (artifact,) = artifacts_of(server, run)
    assert "dead-letter queue" in artifact["data"]
    recorder.record([receipt_of(message)])
    (run,) = runs_of(server, message)
    assert (run["state_name"], GIVEN_UP in run["tags"]) == ("Completed", False), "it was redriven"


@pytest.mark.parametrize("state", ["CANCELLED", "CRASHED"])
def test_a_cancelled_or_crashed_run_keeps_its_state_when_the_upload_is_given_up_on(
    server: PrefectServer, recorder: Recorder, state: str
) -> None:
    message = new_upload()
    existing(server, message, state)
    recorder.record([given_up(message)])
    (run,) = runs_of(server, message)
    assert (run["state_type"], GIVEN_UP in run["tags"]) == (state, True)


def test_the_outcomes_are_events_with_dataset_run_and_key(server: PrefectServer, recorder: Recorder) -> None:
    messages = {"published": new_upload(), "rejected": new_upload(), "failed": new_upload()}
    recorder.record([receipt_of(messages["published"]), receipt_of(messages["rejected"], published=False)])
    recorder.record([given_up(messages["failed"])])

    def events() -> dict[str, dict[str, Any]]:
        resources = {"id": [f"sluice.upload.{message.run_id}" for message in messages.values()]}
        asked = {"filter": {"any_resource": resources}, "limit": 50}
        return {event["event"]: event for event in server.call("POST", "/events/filter", asked)["events"]}

    found = server.eventually(lambda: events() if len(events()) == len(messages) else None)
    assert set(found) == {f"sluice.upload.{status}" for status in messages}
    for status, message in messages.items():
        event = found[f"sluice.upload.{status}"]
        assert event["resource"]["sluice.dataset"] == "orders"
        assert {one["prefect.resource.id"] for one in event["related"]} >= {"sluice.dataset.orders"}
        assert (event["payload"]["run_id"], event["payload"]["key"]) == (message.run_id, message.key)


def test_a_server_without_the_bulk_route_gets_one_request_for_each_run(account: Account, server: PrefectServer) -> None:
    messages = [new_upload(), new_upload()]
    with gateway_to(server.url) as gateway, temporary_settings({PREFECT_API_URL: gateway.url}):
        gateway.unknown = "/create_flow_run/bulk"
        recorded = Recorder(account.parts).record([receipt_of(message) for message in messages])
    assert recorded == {message.run_id for message in messages}
    assert [run["state_type"] for run in runs_of(server, *messages)] == ["COMPLETED"] * 2


def test_a_run_that_prefect_rejects_once_is_still_recorded(account: Account, server: PrefectServer) -> None:
    refused, taken = new_upload(), new_upload()
    with gateway_to(server.url) as gateway, temporary_settings({PREFECT_API_URL: gateway.url}):
        recorder, gateway.unknown, gateway.refuse_next = Recorder(account.parts), "/bulk", ""
        assert recorder.record([receipt_of(taken)]) == {taken.run_id}
        gateway.refuse_next = "/create_flow_run"
        assert recorder.record([receipt_of(refused)]) == {refused.run_id}, "it was retried in the same call"


def test_nothing_is_recorded_and_nothing_is_raised_while_prefect_is_down(account: Account) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/api"
    with temporary_settings({PREFECT_API_URL: nobody, PREFECT_CLIENT_MAX_RETRIES: 0}):
        recorder = Recorder(account.parts)
        receipts: list[Receipt] = [receipt_of(new_upload())]
        assert recorder.record(receipts) == frozenset()
        assert recorder.record(receipts) == frozenset(), "during the pause nothing is asked"
