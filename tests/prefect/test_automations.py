"""Tests on a real Prefect server that the automations in automations.yaml match the right events and do not repeat
messages."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from blocks.prefect_names import PrefectNames
from blocks.settings import PipelineSettings
from deployment import PROJECT_ROOT
from deployment.prefect_setup import automations
from deployment.prefect_setup.blocks import notification_block
from flows.composition import assemble
from flows.observability.crashes import Crash
from flows.observability.recorder import Recorder
from flows.pipeline.attempts import Attempt
from flows.pipeline.errors import StageBroke
from flows.pipeline.receipt import Receipt, Rows
from tests.chain.receiver import Receiver, receiver
from tests.prefect_server import PrefectServer
from tests.unit.flows.pipeline.receipts import receipt_of, upload

NAMES = PrefectNames("sluice")
_SHORTEST_SECONDS = 10  # the shortest `within` that Prefect accepts for an event that fails to occur
_SETTLES_SECONDS = 3
_SETTINGS = PipelineSettings(stack="sluice", landing_bucket="landing", published_bucket="published", queue_url="queue")


@pytest.fixture(scope="module")
def hook() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def applied(server: PrefectServer, hook: Receiver) -> Iterator[PrefectServer]:
    """Register the automations with deadlines of ten seconds, and the block with which they send messages."""
    block = notification_block(NAMES.notify_block, hook.url)
    assert isinstance(block, CustomWebhookNotificationBlock)
    block.save(NAMES.notify_block, overwrite=True)
    entries = copy.deepcopy(automations.declared(NAMES, {"never": _SHORTEST_SECONDS / 3_600}))
    for entry in entries:
        if entry["trigger"]["posture"] == "Proactive":
            entry["trigger"]["within"] = _SHORTEST_SECONDS
    list(automations.apply(NAMES, entries))
    hook.received.clear()
    yield server
    for entry in server.call("POST", "/automations/filter", {}):
        server.call("DELETE", f"/automations/{entry['id']}")


@pytest.fixture
def recorder(applied: PrefectServer) -> Recorder:
    return Recorder(assemble(_SETTINGS))


def messages(hook: Receiver, subject: str) -> list[dict[str, Any]]:
    return [message for message in list(hook.received) if subject in message["subject"]]


def rejected(number: int, dataset: str = "orders") -> Receipt:
    receipt = receipt_of(upload(number, key=f"incoming/{dataset}/{number}.csv"), published=False)
    return receipt.model_copy(update={"contract": receipt.contract.model_copy(update={"dataset": dataset})})


def test_many_rejected_files_of_a_dataset_send_one_message(
    applied: PrefectServer, recorder: Recorder, hook: Receiver
) -> None:
    recorder.record([rejected(number) for number in range(20_000, 20_060)])
    recorder.record([rejected(30_000, "parcels")])
    applied.eventually(lambda: len(messages(hook, "was rejected")) >= 2, 90)
    time.sleep(_SETTLES_SECONDS)
    orders, parcels = sorted(messages(hook, "was rejected"), key=lambda message: str(message["subject"]))
    assert orders["subject"].startswith("orders: a file was rejected (orders / 2")
    assert "the file is empty" in orders["body"]
    assert "/runs/flow-run/" in orders["body"]
    assert parcels["subject"].startswith("parcels: ")


def quarantined(number: int, rows: int, dataset: str = "orders") -> Receipt:
    """Return the receipt of a published file of 1,000 rows, `rows` of which are in quarantine."""
    receipt = receipt_of(upload(number, key=f"incoming/{dataset}/{number}.csv"))
    where = Rows(rows_in=1_000, published=1_000 - rows, quarantined={"rule": rows})
    return receipt.model_copy(
        update={"rows": where, "contract": receipt.contract.model_copy(update={"dataset": dataset})}
    )


def test_many_quarantined_rows_send_one_message_for_a_dataset_and_few_send_none(
    applied: PrefectServer, recorder: Recorder, hook: Receiver
) -> None:
    recorder.record([quarantined(35_000, 99), *(quarantined(number, 100) for number in range(35_001, 35_011))])
    recorder.record([quarantined(36_000, 1_000, "parcels"), quarantined(37_000, 50, "birds")])
    applied.eventually(lambda: len(messages(hook, "in quarantine")) >= 2, 90)
    time.sleep(_SETTLES_SECONDS)
    orders, parcels = sorted(messages(hook, "in quarantine"), key=lambda message: str(message["subject"]))
    assert orders["subject"].startswith("orders: ")
    assert "100 of 1000 rows" in orders["body"]
    assert parcels["subject"].startswith("parcels: ")


def test_uploads_that_the_pipeline_gave_up_on_send_one_message_with_the_error(
    applied: PrefectServer, recorder: Recorder, hook: Receiver
) -> None:
    error = StageBroke("stage refine: KeyError at step.py:3")
    recorder.record(
        [
            Attempt.of(upload(number), error, dataset="orders", receive_count=5, task_arn=None, given_up=True)
            for number in (40_000, 40_001, 40_002)
        ]
    )
    applied.eventually(lambda: messages(hook, "pipeline failed"))
    time.sleep(_SETTLES_SECONDS)
    (notified,) = messages(hook, "pipeline failed")
    assert "stage_broke: stage refine" in notified["body"]


def test_a_rejected_file_is_no_failure_of_the_pipeline_and_a_published_one_sends_nothing(
    applied: PrefectServer, recorder: Recorder, hook: Receiver
) -> None:
    recorder.record([rejected(50_000), receipt_of(upload(50_001))])
    applied.eventually(lambda: messages(hook, "was rejected"))
    time.sleep(_SETTLES_SECONDS)
    assert len([notified for notified in hook.received if "no file came" not in notified["subject"]]) == 1


def test_only_the_dataset_without_files_is_overdue(applied: PrefectServer, recorder: Recorder, hook: Receiver) -> None:
    notified = applied.eventually(lambda: messages(hook, "no file came for never"), 60)
    assert "expected_every_hours" in notified[0]["body"]


def _run(server: PrefectServer, deployment: str, state: dict[str, Any]) -> str:
    deployment_id = server.call("GET", f"/deployments/name/{deployment}")["id"]
    run = server.call("POST", f"/deployments/{deployment_id}/create_flow_run", {"name": deployment, "state": state})
    return str(run["id"])


def _explanations(server: PrefectServer) -> list[str]:
    found = server.call("POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["explain-crash"]}}})
    return [run["parameters"]["flow_run_id"] for run in found]


def test_a_crash_is_explained_once_and_only_for_this_stacks_runs(applied: PrefectServer, hook: Receiver) -> None:
    """Explaining a crash sets the run's state to Crashed again, which must not count as a second crash."""
    applied.deploy("process-upload/trial", "stack:trial")
    crashed = {"type": "CRASHED", "message": "killed"}
    other, mine = _run(applied, "process-upload/trial", crashed), _run(applied, "process-upload/sluice", crashed)
    applied.eventually(lambda: mine in _explanations(applied))
    explained = {"type": "CRASHED", "message": Crash("out of memory").explanation("killed")}
    applied.call("POST", f"/flow_runs/{mine}/set_state", {"state": explained, "force": True})
    time.sleep(_SETTLES_SECONDS)
    assert [one for one in _explanations(applied) if one in (mine, other)] == [mine]
    assert len(messages(hook, "crashed")) == 1


@pytest.mark.parametrize("kind", ["upload", "drain"])
def test_a_run_without_heartbeats_is_set_to_crashed_and_a_recorded_one_is_not(
    applied: PrefectServer, recorder: Recorder, kind: str
) -> None:
    if kind == "upload":
        run = _run(applied, "process-upload/sluice", {"type": "RUNNING"})
    else:
        flow = applied.call("POST", "/flows/", {"name": "drain-queue"})["id"]
        body = {"flow_id": flow, "name": "drain", "tags": ["stack:sluice"], "state": {"type": "RUNNING"}}
        run = applied.call("POST", "/flow_runs/", body)["id"]
    recorder.record([receipt_of(upload(60_000))])
    applied.eventually(lambda: applied.call("GET", f"/flow_runs/{run}")["state_type"] == "CRASHED", 60)
    key = {"idempotency_key": {"any_": [upload(60_000).run_id]}}
    (recorded,) = applied.call("POST", "/flow_runs/filter", {"flow_runs": key})
    assert recorded["state_type"] == "COMPLETED"


def test_the_example_starts_one_training_after_the_last_of_several_uploads(
    applied: PrefectServer, recorder: Recorder, tmp_path: Path
) -> None:
    """The test uncomments the example in prefect.yaml and shortens its quiet period."""
    text = (PROJECT_ROOT / "prefect.yaml").read_text()
    example = "".join(line[2:] + "\n" for line in text[text.index("# - name") :].splitlines())
    (deployment,) = yaml.safe_load(example)
    deployment["triggers"][0]["within"] = _SHORTEST_SECONDS
    project = tmp_path / "prefect.yaml"
    project.write_text(yaml.safe_dump({"pull": yaml.safe_load(text)["pull"], "deployments": [deployment]}))
    environment = applied.environment | {
        "SLUICE_STACK": "sluice",
        "SLUICE_WORK_POOL": "train-local",
        "SLUICE_CODE_DIRECTORY": str(PROJECT_ROOT),
    }
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for command in (
        ["work-pool", "create", "train-local", "--type", "process"],
        ["deploy", "--all", "--prefect-file", str(project)],
    ):
        subprocess.run([*prefect, *command], cwd=PROJECT_ROOT, env=environment, check=True, capture_output=True)
    # One by one, because Prefect may take any of several simultaneous events for the last.
    for number in (70_000, 70_001, 70_002):
        recorder.record([receipt_of(upload(number))])
    last = upload(70_002).run_id

    def trainings() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = applied.call(
            "POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["train"]}}}
        )
        return found

    applied.eventually(trainings, 60)
    time.sleep(_SETTLES_SECONDS)
    (training,) = trainings()
    assert training["parameters"] == {"dataset": "orders", "receipt_uri": f"s3://published/receipts/{last}.json"}
