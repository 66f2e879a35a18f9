"""End-to-end uploads through the whole pipeline (S3, Lambda, SQS, Step Functions, ECS and Prefect), with IAM enforced.

Only AWS itself is emulated. The template, the Lambda's zip, the state machine, the container's command and the Prefect
server are the real ones.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.pipeline.receipt import Status
from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import dirty_orders, good_orders, order, orders

pytestmark = pytest.mark.cloud


@pytest.fixture(scope="module")
def alone(chain: Chain) -> UploadMessage:
    """Upload a good file while the pipeline is idle, so that the task launched for it also processes it."""
    chain.settle()
    upload = chain.upload("incoming/orders/good.csv", good_orders(5))
    assert chain.done(upload).status is Status.PUBLISHED
    chain.settle()
    return upload


_KEY_WITH_EVERYTHING = "incoming/orders/a b+c é %2F ../../receipts/x 🐧.csv"
_REJECTED = {
    "empty": (b"", "empty"),
    "header": (orders(), "row"),
    "binary": (bytes(range(256)) * 40, ""),
    "columns": (b"order_id,quantity\nORD-00000001,1\n", "column"),
    "bad": (orders(*(order(n, quantity=0) for n in range(1, 6))), "rows"),
}
_BATCH = {
    "incoming/orders/dirty.csv": dirty_orders(),
    _KEY_WITH_EVERYTHING: good_orders(2),
    "incoming/Some Where/table.csv": b"First Name,Age\nAda,36\n",
    **{f"incoming/orders/{name}.csv": body for name, (body, _) in _REJECTED.items()},
    **{f"incoming/orders/at-once-{count}.csv": good_orders(count) for count in (1, 2)},
}


@pytest.fixture(scope="module")
def batch(chain: Chain, alone: UploadMessage) -> dict[str, UploadMessage]:
    """Upload files of all types at the same time, and return their messages by key. A task also processes messages of
    files that it was not launched for."""
    del alone  # requested only so that it is processed before the batch
    with ThreadPoolExecutor(len(_BATCH)) as pool:
        uploads = list(pool.map(chain.upload, _BATCH, _BATCH.values()))
    return {upload.key: upload for upload in uploads}


def test_a_good_file_is_published_with_a_receipt(chain: Chain, alone: UploadMessage) -> None:
    receipt = chain.receipt(alone)
    assert receipt.status is Status.PUBLISHED
    assert (receipt.rows.rows_in, receipt.rows.published) == (5, 5)
    frame = chain.published(receipt)
    assert frame["revenue"].tolist() == [19.0] * 5
    assert frame["customer_id"].tolist() == ["000001", "000002", "000003", "000004", "000005"]


def test_the_receipt_names_its_execution_task_flow_run_and_object_version(chain: Chain, alone: UploadMessage) -> None:
    receipt = chain.receipt(alone)
    assert receipt.observed
    assert receipt.chain.execution_arn in [drain["executionArn"] for drain in chain.drains()]
    assert receipt.chain.task_arn is not None
    assert ":task/" in receipt.chain.task_arn
    (flow_run,) = chain.flow_runs(alone)
    assert receipt.chain.flow_run_id == flow_run["id"]
    assert receipt.source.version_id == alone.version_id
    assert receipt.source.sequencer


def test_an_upload_is_one_flow_run_of_its_deployment(chain: Chain, alone: UploadMessage) -> None:
    (flow_run,) = chain.flow_runs(alone)
    assert flow_run["deployment_id"] is not None
    assert flow_run["parameters"]["key"] == alone.key
    assert flow_run["parameters"]["version_id"] == alone.version_id
    assert {"orders", "upload", "published"} <= set(flow_run["tags"])
    assert (flow_run["state"]["type"], flow_run["state"]["name"]) == ("COMPLETED", "Completed")
    assert "good.csv" in flow_run["name"]
    assert alone.run_id[:8] in flow_run["name"]


def test_the_task_runs_of_a_flow_run_show_whose_results_each_stage_used(chain: Chain, alone: UploadMessage) -> None:
    (flow_run,) = chain.flow_runs(alone)
    tasks = chain.ask_prefect("task_runs", flow_runs={"id": {"any_": [flow_run["id"]]}})
    stage_of = {task["id"]: task["name"] for task in tasks}
    inputs = {
        task["name"]: {stage_of[value["id"]] for values in task["task_inputs"].values() for value in values}
        for task in tasks
    }
    assert inputs == {
        "fetch": set(),
        "refine": {"fetch"},
        "publish": {"fetch", "refine"},
        "record": {"fetch", "refine", "publish"},
    }


def test_bad_rows_are_quarantined_with_their_reasons_and_the_others_published(
    chain: Chain, batch: dict[str, UploadMessage]
) -> None:
    upload = batch["incoming/orders/dirty.csv"]
    receipt = chain.done(upload)
    assert receipt.status is Status.PUBLISHED
    assert (receipt.rows.rows_in, receipt.rows.published) == (12, 9)
    assert receipt.rows.quarantined_total == 2
    assert receipt.rows.dropped_total == 1
    assert receipt.rows.balanced
    bad = chain.quarantined(receipt)
    assert sorted(bad["_row_number"]) == [10, 11]
    rules = {number: list(broken) for number, broken in zip(bad["_row_number"], bad["_rules"], strict=True)}
    assert "quantity" in rules[10][0]
    assert "unit_price" in rules[11][0]


@pytest.mark.parametrize("name", _REJECTED)
def test_a_file_that_cannot_be_published_is_rejected_with_a_reason(
    chain: Chain, batch: dict[str, UploadMessage], name: str
) -> None:
    upload = batch[f"incoming/orders/{name}.csv"]
    receipt = chain.done(upload)
    assert receipt.status is Status.REJECTED
    assert receipt.reasons
    assert _REJECTED[name][1] in receipt.reason
    assert receipt.outputs == ()
    (flow_run,) = chain.wait_for(lambda: chain.flow_runs(upload), "its flow run")
    flow_run = chain.wait_for(lambda: chain.final(flow_run["id"]), "the end of its flow run")
    assert (flow_run["state"]["type"], flow_run["state"]["name"]) == ("FAILED", "Failed")
    # If Prefect is slow, the run is recorded later, and a second line in the message states that.
    assert flow_run["state"]["message"].split("\nProcessed ")[0] == receipt.reason
    assert {"orders", "rejected"} <= set(flow_run["tags"])


def test_a_key_with_special_characters_is_processed_and_cannot_leave_its_prefix(
    chain: Chain, batch: dict[str, UploadMessage]
) -> None:
    upload = batch[_KEY_WITH_EVERYTHING]
    receipt = chain.done(upload)
    assert receipt.status is Status.PUBLISHED
    assert receipt.source.key == upload.key
    (output,) = receipt.outputs
    assert output.key == f"data/orders/{upload.run_id}-0-{output.sha256[:16]}.parquet"


def test_a_file_without_a_contract_is_published_under_the_default_one_and_its_receipt_shows_that(
    chain: Chain, batch: dict[str, UploadMessage]
) -> None:
    upload = batch["incoming/Some Where/table.csv"]
    receipt = chain.done(upload)
    assert receipt.status is Status.PUBLISHED
    assert receipt.contract.is_default
    assert receipt.outputs[0].key.startswith("data/default/some-where/")


def test_files_that_arrive_together_are_all_processed(chain: Chain, batch: dict[str, UploadMessage]) -> None:
    for count in (1, 2):
        upload = batch[f"incoming/orders/at-once-{count}.csv"]
        assert chain.done(upload).rows.published == count
    assert all(chain.has_receipt(upload) for upload in batch.values())
    chain.settle()
    assert chain.messages("DeadLetterQueueUrl") == {"waiting": 0, "held": 0}


def test_a_second_version_replaces_the_output_of_the_first(chain: Chain) -> None:
    first = chain.upload("incoming/orders/twice.csv", good_orders(3))
    chain.done(first)
    second = chain.upload("incoming/orders/twice.csv", good_orders(4))
    chain.done(second)
    chain.settle()
    assert chain.receipt(first).rows.published == 3
    assert chain.receipt(second).rows.published == 4
    data = chain.keys("data/orders/")
    assert chain.receipt(second).outputs[0].key in data
    assert chain.receipt(first).outputs[0].key not in data


def test_the_same_event_five_times_gives_one_published_result(chain: Chain) -> None:
    upload = chain.upload("incoming/orders/five-times.csv", good_orders(3))
    event = chain.event_of(upload)
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: chain.deliver(event), range(5)))
    assert [answer["error"] for answer in answers] == [None] * 5
    assert chain.done(upload).status is Status.PUBLISHED
    chain.settle()
    (output,) = chain.receipt(upload).outputs
    assert [key for key in chain.keys("data/") if upload.run_id in key] == [output.key]
    assert len(chain.flow_runs(upload)) == 1
    assert chain.messages("DeadLetterQueueUrl") == {"waiting": 0, "held": 0}


def test_a_bad_record_does_not_stop_the_others_of_its_event(chain: Chain) -> None:
    first = chain.upload("incoming/orders/multi-1.csv", good_orders(1))
    second = chain.upload("incoming/orders/multi-2.csv", good_orders(1))
    event = chain.event_of(first, second)
    event["Records"].insert(1, {"eventName": "ObjectCreated:Put", "s3": {"bucket": {}}})
    answer = chain.deliver(event)
    assert answer["error"] is not None
    assert "1 of 3 records" in json.dumps(answer["payload"])
    for upload in (first, second):
        assert chain.done(upload).status is Status.PUBLISHED


def test_an_upload_outside_of_the_watched_prefix_changes_nothing(chain: Chain) -> None:
    chain.settle()
    before, drains = chain.keys(""), len(chain.drains())
    outside = chain.upload("elsewhere/orders/x.csv", good_orders(1))
    handed_over = chain.deliver(chain.event_of(outside))
    assert handed_over == {"error": None, "payload": {"dispatched": 0, "ignored": 1, "failed": 0}}
    assert len(chain.drains()) == drains
    assert chain.queue_is_empty()
    assert chain.keys("") == before


def test_a_task_that_dies_before_its_receipt_is_replaced_by_its_drain(chain: Chain) -> None:
    chain.settle()
    upload = chain.upload("incoming/orders/orphan.csv", good_orders(3))
    run = chain.wait_for(lambda: next(iter(chain.flow_runs(upload)), None), "the flow run")
    chain.wait_for(lambda: chain.flow_run(run["id"])["state"]["type"] == "RUNNING", "the task to be at work")
    assert chain.kill_tasks() == 1
    assert not chain.has_receipt(upload), "it was killed in time"
    receipt = chain.done(upload, seconds=180)
    chain.wait_for(lambda: chain.flow_run(run["id"])["state"]["type"] == "COMPLETED", "the flow run to be completed")
    assert "CRASHED" in [state["type"] for state in chain.states_of(run["id"])], "Prefect's history shows the crash"
    assert receipt.chain.receive_count is not None
    assert receipt.chain.receive_count > 1
    (flow_run,) = chain.flow_runs(upload)
    assert flow_run["state"]["name"] == "Completed"
    chain.settle()
    assert len([key for key in chain.keys("data/") if upload.run_id in key]) == 1
