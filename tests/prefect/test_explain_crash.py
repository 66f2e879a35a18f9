"""Tests that a crashed run is explained from what its task recorded, and that its state is corrected if a receipt
exists."""

from __future__ import annotations

from typing import Any

import pytest

import flows.explain_crash
from flows.explain_crash import explain_crash
from flows.pipeline.attempts import Attempt, write_attempt
from flows.pipeline.batch_notes import BatchNote, NotedUpload, write_note
from flows.pipeline.commit import commit
from flows.pipeline.errors import OutOfMemory
from flows.pipeline.receipt import Status
from flows.refinery.checks import RejectionReason
from lambda_trigger.message import UploadMessage
from tests.prefect.test_recorder import artifacts_of, existing, new_upload
from tests.prefect_server import PrefectServer
from tests.unit.flows.conftest import Account
from tests.unit.flows.pipeline.receipts import receipt_of


@pytest.fixture(autouse=True)
def _parts(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.explain_crash, "parts_of_environment", lambda: account.parts)


def crashed(server: PrefectServer, message: UploadMessage) -> dict[str, Any]:
    """Create a crashed run for an upload, explain the crash, and return the run."""
    run_id = existing(server, message, "CRASHED")
    assert explain_crash(run_id, return_state=True).is_completed()
    run: dict[str, Any] = server.call("GET", f"/flow_runs/{run_id}")
    return run


@pytest.mark.parametrize(("status", "state"), [(Status.PUBLISHED, "COMPLETED"), (Status.REJECTED, "FAILED")])
def test_a_run_that_crashed_after_its_receipt_is_set_to_the_receipts_outcome(
    server: PrefectServer, account: Account, status: Status, state: str
) -> None:
    message = new_upload()
    reasons = (RejectionReason(code="empty", message="no rows"),) if status is Status.REJECTED else ()
    commit(account.parts.store, receipt_of(message, status=status, reasons=reasons))
    run = crashed(server, message)
    assert run["state_type"] == state
    assert status in run["tags"]


def test_a_run_that_crashed_without_a_receipt_shows_what_its_tasks_recorded(
    server: PrefectServer, account: Account
) -> None:
    message, store = new_upload(), account.parts.store
    noted = NotedUpload(upload=message, message_id="m")
    write_note(
        store, BatchNote(task="task-7", number=1, at="2026-01-01T00:00:00Z", refining=message.run_id, uploads=(noted,))
    )
    write_attempt(
        store, Attempt.of(message, OutOfMemory("give it 4096 MiB"), dataset="orders", receive_count=1, task_arn=None)
    )
    run = crashed(server, message)
    assert run["state_type"] == "CRASHED"
    for known in ("task-7 was refining the upload", "OutOfMemory: give it 4096 MiB"):
        assert known in run["state"]["message"]
    assert [artifact["key"] for artifact in artifacts_of(server, run)] == ["crash"]


def test_the_receipt_of_an_earlier_attempt_is_not_the_outcome_of_a_crashed_one(
    server: PrefectServer, account: Account
) -> None:
    message = new_upload()
    commit(account.parts.store, receipt_of(message))
    deployment = server.call("GET", "/deployments/name/process-upload/sluice")["id"]
    run = {"name": "again", "idempotency_key": f"{message.run_id}-1", "state": {"type": "CRASHED"}}
    run_id = server.call("POST", f"/deployments/{deployment}/create_flow_run", run)["id"]
    explain_crash(run_id)
    assert server.call("GET", f"/flow_runs/{run_id}")["state_type"] == "CRASHED"


def test_a_crash_is_explained_even_if_an_attempt_cannot_be_read(server: PrefectServer, account: Account) -> None:
    message = new_upload()
    account.parts.store.put(f"attempts/{message.run_id}.json", "{}")
    assert crashed(server, message)["state"]["message"].startswith("Explained: ")
