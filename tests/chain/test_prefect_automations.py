"""Tests of Prefect's automations, their notifications, and the explanations of crashed runs."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployment.local.pipeline import STACK_NAME
from deployment.prefect_setup.automations import declared
from flows.observability.crashes import EXPLAINED
from flows.observability.run_identity import TASK_LABEL
from flows.pipeline.receipt import Status
from tests.chain.chain import NAMES, Chain
from tests.chain.files import good_orders
from tests.chain.receiver import Receiver, receiver
from tests.faults.step_contracts import GATE_VARIABLE, slow_contracts
from tests.restart import restart_prefect

pytestmark = [pytest.mark.cloud, pytest.mark.usefixtures("worker")]
_SHORTEST_SECONDS = 10  # the minimum that Prefect accepts for a trigger on an event that does not happen
_AN_HOUR = 3_600


@pytest.fixture(scope="module")
def hook(chain: Chain) -> Iterator[Receiver]:
    """Register the automations with a webhook as their notification channel, as an operator does."""
    with receiver() as server:
        register = ["python", "-m", "deployment.prefect_setup", "register", STACK_NAME, "--pool", "local"]
        chain.cloud.run(register, timeout_seconds=300, environment={"SLUICE_NOTIFY_URL": server.url})
        chain.apply_automations(declared(NAMES))  # the second time must change nothing
        try:
            yield server
        finally:
            _remove(chain, lambda name: any(name == entry["name"] for entry in _notifying()))


def automations(chain: Chain) -> list[dict[str, Any]]:
    return chain.ask_prefect("automations")


def test_applying_the_automations_again_duplicates_nothing(chain: Chain, hook: Receiver) -> None:
    names = [automation["name"] for automation in automations(chain)]
    assert len(names) == len(set(names))
    assert {entry["name"] for entry in declared(NAMES)} <= set(names)


def test_a_rejected_file_is_reported_with_its_reason(chain: Chain, hook: Receiver) -> None:
    upload = chain.upload("incoming/orders/empty.csv", b"")
    chain.done(upload)
    notified = chain.wait_for(lambda: hook.notification_about("empty.csv"), "the notification", 60)
    assert "rejected" in notified["subject"]
    assert "0 bytes" in notified["body"]


def test_a_broken_pipeline_is_reported_and_retry_publishes_the_file_once_it_is_fixed(
    chain: Chain, hook: Receiver
) -> None:
    """The tasks' role loses a permission. Only a manual Retry can process the file, because its message is removed from
    the queue."""
    chain.settle()
    with chain.denied("s3:PutObject"):
        upload = chain.upload("incoming/orders/mended.csv", good_orders(3))
        notified = chain.wait_for(lambda: hook.notification_about("mended.csv"), "the notification", 90)
        _give_up(chain)
    assert "the pipeline failed" in notified["subject"]
    assert "aws_refused" in notified["body"]
    (begun,) = chain.flow_runs(upload)
    run = chain.wait_for(lambda: chain.final(begun["id"]), "the end of the run, which comes after its event")
    assert (run["state"]["type"], run["state"]["name"]) == ("FAILED", "Failed")
    assert "rejected" not in run["tags"], "the file is good"
    chain.cloud.run(["prefect", "flow-run", "retry", run["id"]], timeout_seconds=300)
    chain.wait_for(lambda: chain.has_receipt(upload), "the receipt")
    chain.wait_for(lambda: _state(chain, run["id"])["name"] == "Completed", "the run to be completed")
    assert chain.receipt(upload).status is Status.PUBLISHED
    assert len([key for key in chain.keys("data/") if upload.run_id in key]) == 1


def test_a_killed_task_leaves_a_crashed_run_with_the_reason_and_its_last_lines_and_is_reported(
    chain: Chain, hook: Receiver
) -> None:
    """SIGKILL leaves a flow run in the state Running without a process. Here, no other task takes over the upload."""
    chain.settle()
    with _sooner(chain, "Sluice: a run without a heartbeat has crashed (sluice)"):
        upload = chain.upload("incoming/orders/killed.csv", good_orders(3))
        run = chain.wait_for(lambda: next(iter(chain.flow_runs(upload)), None), "the flow run")
        chain.wait_for(lambda: _state(chain, run["id"])["type"] == "RUNNING", "the run to be at work")
        assert chain.kill_tasks() == 1
        task = str(chain.flow_run(run["id"])["labels"][TASK_LABEL])
        chain.wait_for(lambda: _stopped(chain, task), "ECS to notice")
        _give_up(chain)
        assert not chain.has_receipt(upload), "it was killed in time"
        state = chain.wait_for(lambda: _explained(chain, run["id"]), "the crash to be explained", 120)
    assert state["type"] == "CRASHED"
    assert state["message"].startswith(f"{EXPLAINED}killed, perhaps out of memory")
    assert "No heartbeat" in state["message"]
    assert "exited with code 137" in state["message"], "ECS's reason for the end of the task"
    assert "Its last log lines:" in state["message"] or "It logged nothing" in state["message"], "it had little time"
    (artifact,) = chain.artifacts("crash", run["id"])
    assert "Last log lines" in artifact["data"]
    notified = chain.wait_for(lambda: hook.notification_about("killed.csv"), "the notification", 60)
    assert "No heartbeat" in notified["body"]


def test_a_killed_run_of_a_worker_is_crashed_with_its_last_lines(chain: Chain, tmp_path: Path) -> None:
    """The worker reports the end of its process immediately. The other details come from the run's log."""
    gate = tmp_path / "step.gate"
    upload = chain.upload("incoming/_archive/killed.csv", good_orders(3))
    variables = {"env": slow_contracts(chain.copy_contracts(tmp_path / "contracts")) | {GATE_VARIABLE: str(gate)}}
    run_id = chain.schedule(job_variables=variables, key=upload.key, dataset="orders")
    chain.wait_for(lambda: "The contract is orders" in chain.log_of(run_id), "the run's log to have arrived")
    reached = gate.with_suffix(".reached")
    pid = chain.wait_for(lambda: reached.read_text() if reached.exists() else None, "the run to be at work")
    os.kill(int(pid), signal.SIGKILL)
    state = chain.wait_for(lambda: _explained(chain, run_id), "the crash to be explained", 120)
    assert state["message"].startswith(f"{EXPLAINED}killed")
    assert "-9" in state["message"], "the worker's message"
    assert "The contract is orders" in state["message"], "the last lines"
    assert not chain.has_receipt(upload)


def test_a_run_whose_task_never_starts_is_set_to_crashed(chain: Chain, hook: Receiver) -> None:
    """The ECS worker leaves a run in the state Submitting after ECS has accepted its request. Here, no process starts
    the run."""
    with _sooner(chain, "Sluice: a submitted run did not begin (sluice)"):
        deployment = chain.call_prefect("GET", f"/deployments/name/{NAMES.deployment('process-upload')}")["id"]
        run = {"name": "never-begun", "parameters": {"key": "k"}, "state": {"type": "PENDING", "name": "Submitting"}}
        run_id = chain.call_prefect("POST", f"/deployments/{deployment}/create_flow_run", run)["id"]
        assert _state(chain, run_id)["name"] == "Submitting"
        chain.wait_for(lambda: _state(chain, run_id)["type"] == "CRASHED", "the run to be Crashed", 90)
    messages = [state["message"] for state in chain.states_of(run_id) if state["name"] == "Crashed"]
    assert "its task or process did not start" in messages[0], "a second one may already explain the crash"
    notified = chain.wait_for(lambda: hook.notification_about("never-begun"), "the notification", 60)
    assert "Retry" in notified["body"]


def test_an_overdue_file_is_reported(chain: Chain, hook: Receiver) -> None:
    """The automation is the one that registration declares, but with a deadline in seconds, where a contract has
    hours."""
    entries = declared(NAMES, {"parcels": _SHORTEST_SECONDS / _AN_HOUR})
    chain.apply_automations(entry for entry in entries if "parcels" in entry["name"])
    try:
        notified = chain.wait_for(lambda: hook.notification_about("parcels"), "the notification", 90)
    finally:
        _remove(chain, lambda name: "parcels" in name)
    assert "expected_every_hours" in notified["body"]


def test_an_upload_during_an_outage_of_prefect_is_shown_and_reported_afterwards(chain: Chain, hook: Receiver) -> None:
    chain.settle()
    chain.apply_automations(declared(NAMES))  # this starts a new window for notifications
    assert chain.cloud.prefect is not None
    chain.cloud.prefect.stop()
    try:
        upload = chain.upload("incoming/orders/unseen.csv", b"")
        chain.done(upload)
    finally:
        restart_prefect(chain.cloud)
    assert chain.receipt(upload).observed is False
    (run,) = chain.wait_for(lambda: chain.flow_runs(upload), "the upload to be recorded", 180)
    assert (run["state"]["name"], "rejected" in run["tags"]) == ("Failed", True)
    notified = chain.wait_for(lambda: hook.notification_about("unseen.csv"), "the notification", 60)
    assert "0 bytes" in notified["body"]


# --- helpers --------------------------------------------------------------------------------------------------------


def _notifying() -> list[dict[str, Any]]:
    return [entry for entry in declared(NAMES) if all("notify" in action for action in entry["actions"])]


def _remove(chain: Chain, is_meant: Any) -> None:
    for automation in automations(chain):
        if is_meant(automation["name"]):
            httpx.delete(f"{chain.cloud.endpoints.prefect_api_url}/automations/{automation['id']}", timeout=30)


@contextmanager
def _sooner(chain: Chain, name: str) -> Iterator[None]:
    """Within the context, shorten the waiting time of a declared automation to the minimum that Prefect accepts."""
    entry = next(entry for entry in declared(NAMES) if entry["name"] == name)
    sooner = copy.deepcopy(entry)
    sooner["trigger"]["within"] = _SHORTEST_SECONDS
    try:
        chain.apply_automations([sooner])
        yield
    finally:
        chain.apply_automations([entry])


def _give_up(chain: Chain) -> None:
    """Prevent another task from taking over the upload, by stopping the drains and deleting its message."""
    for drain in chain.drains("RUNNING"):
        chain.step_functions.stop_execution(executionArn=drain["executionArn"])
    chain.sqs.purge_queue(QueueUrl=chain.outputs["QueueUrl"])


def _state(chain: Chain, flow_run_id: str) -> dict[str, Any]:
    state: dict[str, Any] = chain.flow_run(flow_run_id)["state"]
    return state


def _stopped(chain: Chain, task_arn: str) -> bool:
    (task,) = chain.ecs.describe_tasks(cluster=chain.outputs["ClusterArn"], tasks=[task_arn])["tasks"]
    return bool(task["lastStatus"] == "STOPPED")


def _explained(chain: Chain, flow_run_id: str) -> dict[str, Any] | None:
    state = _state(chain, flow_run_id)
    return state if (state["message"] or "").startswith(EXPLAINED) else None
