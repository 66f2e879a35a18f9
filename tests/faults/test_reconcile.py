"""Tests of reconcile: an event is lost permanently, so that only the landing bucket shows that there was an upload, or
an output is left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deployment.local.pipeline import settings_of
from flows.pipeline.batch_notes import BatchNote, NotedUpload
from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import good_orders
from tests.emulator.records import decisions_of
from tests.faults.bench import Bench, kept_promises
from tests.faults.catalogue import fault

pytestmark = pytest.mark.cloud
_PREFIX = "incoming/lost/"


@contextmanager
def _s3_notifies_the_lambda(chain: Chain) -> Iterator[None]:
    """Turn on S3's notifications, which are off in this suite, until the context ends."""
    bucket, function = chain.outputs["LandingBucket"], chain.outputs["TriggerFunctionArn"]
    told = {"LambdaFunctionConfigurations": [{"LambdaFunctionArn": function, "Events": ["s3:ObjectCreated:*"]}]}
    chain.s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=told)
    try:
        yield
    finally:
        chain.s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})


@pytest.fixture(scope="module")
def lost(chain: Chain, bench: Bench) -> UploadMessage:
    """Return an upload whose event was lost when the AWS emulator was killed.

    The Lambda is not allowed to send a message to the queue. So whenever the emulator is killed, the event is in one of
    the Lambda's attempts and nowhere else.
    """
    chain.settle()  # so that no work of earlier tests is left,
    bench.wait_until_saved()  # also when the emulator has restored its state
    failures = chain.messages("TriggerFailuresQueueUrl")
    with _s3_notifies_the_lambda(chain), bench.denied(bench.role_named("TriggerRole"), "sqs:SendMessage"):
        upload = chain.upload(f"{_PREFIX}orders.csv", good_orders(3))
        bench.kill_cloud()
    assert chain.queue_is_empty()
    assert chain.messages("TriggerFailuresQueueUrl") == failures
    return upload


def _table(chain: Chain, flow_run_id: str) -> list[dict[str, Any]]:
    """Return the rows of the table that the run has written as an artifact."""
    wanted = {"flow_run_id": {"any_": [flow_run_id]}, "type": {"any_": ["table"]}}
    (artifact,) = chain.ask_prefect("artifacts", artifacts=wanted)
    table: list[dict[str, Any]] = json.loads(artifact["data"])
    return table


def test_a_dry_run_shows_what_is_lost_and_changes_nothing(chain: Chain, lost: UploadMessage) -> None:
    with chain.worker():
        run = chain.run_by_hand("reconcile/sluice", dry_run=True, grace_minutes=0, prefix=_PREFIX)
    assert run["state"]["name"] == "Completed", run["state"]
    (row,) = _table(chain, run["id"])
    assert (row["key"], row["run"], row["done"]) == (lost.key, lost.run_id, "would be dispatched")
    assert chain.queue_is_empty()


@fault(
    "Trigger",
    "the event is lost permanently, because the AWS emulator is killed with the event in its memory",
    expected="reconcile, with only the permissions of its role, queues the upload; published once",
)
def test_an_upload_whose_event_was_lost_is_found_and_published_once(
    chain: Chain, bench: Bench, lost: UploadMessage
) -> None:
    live, bucket = "contracts/live/lost.yaml", chain.outputs["PublishedBucket"]
    chain.s3.put_object(Bucket=bucket, Key=live, Body=b"dataset: lost\n")
    for _ in range(2):  # the second run finds that the upload is in progress or done
        _reconcile_as_its_role(chain, bench)
    chain.done(lost)
    assert kept_promises(chain, lost).rows.published == 3
    assert chain.receipt(lost).contract.dataset == "lost", "as it was published: no image has this contract"
    chain.s3.delete_object(Bucket=bucket, Key=live)
    chain.wait_for(chain.queue_is_empty, "the queue to be empty")
    assert _refused(chain) == []


@fault(
    "Queue and task",
    "a stalled worker, overtaken by another one, writes its output and is killed, so no worker cleans up",
    expected="reconcile, with only the permissions of its role, deletes the output, and nothing else",
)
def test_the_output_that_an_overtaken_worker_left_behind_is_deleted(chain: Chain, bench: Bench) -> None:
    upload = chain.upload("incoming/left/orders.csv", good_orders(2))
    assert chain.deliver(chain.event_of(upload))["error"] is None
    chain.done(upload)
    (own,) = [output.key for output in chain.receipt(upload).outputs]
    left = own.replace(own.rsplit("-", 1)[-1], f"{'0' * 16}.parquet")
    chain.s3.put_object(Bucket=chain.outputs["PublishedBucket"], Key=left, Body=b"rows of another release")
    # A message in flight and a batch note, whose ages the role must be allowed to read, too.
    chain.settle()
    queue = chain.outputs["QueueUrl"]
    chain.sqs.send_message(QueueUrl=queue, MessageBody=upload.to_json())
    (held,) = chain.sqs.receive_message(QueueUrl=queue, VisibilityTimeout=120)["Messages"]
    noted = NotedUpload(upload=upload, message_id="m", announced=True, recorded=True)
    note = BatchNote(task="overtaken", number=1, uploads=(noted,), at="2026-01-01T00:00:00Z")
    chain.s3.put_object(Bucket=chain.outputs["PublishedBucket"], Key=note.key, Body=note.to_json().encode())
    _reconcile_as_its_role(chain, bench)
    chain.sqs.delete_message(QueueUrl=queue, ReceiptHandle=held["ReceiptHandle"])
    there = chain.keys("data/")
    assert own in there
    assert left not in there
    assert _refused(chain) == []


def _reconcile_as_its_role(chain: Chain, bench: Bench) -> None:
    as_its_role = settings_of(chain.outputs) | bench.credentials_of(bench.role_named("ReconcileRole"))
    reconcile_now = ["python", "-m", "tests.reconcile_now", _PREFIX]
    chain.cloud.run(reconcile_now, timeout_seconds=120, environment=as_its_role)


def _refused(chain: Chain) -> list[dict[str, Any]]:
    return [one for one in decisions_of(chain.cloud.state_dir) if "ReconcileRole" in one["role"] and not one["allowed"]]
