"""The container processes every message, and its exit code shows whether its own run has a receipt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import replace
from functools import partial
from http.client import IncompleteRead
from io import BytesIO
from pathlib import Path

import boto3
import pytest

from flows.composition import assemble, task_identity
from flows.drain_queue import EXIT_MISCONFIGURED, EXIT_NO_RECEIPT, QueueConsumer, Stopped
from flows.observability.flow_run import FlowRunner
from flows.pipeline.commit import index_entry, read_receipt
from flows.pipeline.job import Parts, TaskIdentity, UploadJob
from flows.pipeline.protocol import IndexUnreadable, ReceiptConflict
from flows.pipeline.receipt import Receipt, Status
from flows.pipeline.run import run_upload
from flows.refinery.errors import TransientError
from tests.chain.files import good_orders
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account

KEY = "incoming/orders/monday.csv"


class Failing:
    """Raises an error for the first upload, and processes the others."""

    def __init__(self, error: BaseException) -> None:
        self._errors = [error]

    def __call__(self, parts: Parts, job: UploadJob) -> Receipt:
        if self._errors:
            raise self._errors.pop()
        return run_upload(parts, job)


def drain(account: Account, run_id: str | None, process: Failing | None = None) -> QueueConsumer:
    identity = TaskIdentity(run_id=run_id, execution_arn="arn:execution", task_arn="arn:task")
    parts = account.parts
    return QueueConsumer(parts, identity, partial(process, parts) if process else FlowRunner(parts).process)


def test_its_own_upload_done_is_exit_code_0_and_the_message_is_deleted(account: Account) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    assert drain(account, upload.run_id).run() == 0
    assert account.messages() == 0
    receipt = read_receipt(account.parts.store, upload.run_id)
    assert receipt is not None
    assert (receipt.chain.execution_arn, receipt.chain.task_arn) == ("arn:execution", "arn:task")


def test_a_rejected_file_is_exit_code_0_too(account: Account) -> None:
    """The task did its work; the receipt records that the data is bad."""
    upload = account.upload(KEY, b"")
    account.send(upload.to_json())
    assert drain(account, upload.run_id).run() == 0
    receipt = read_receipt(account.parts.store, upload.run_id)
    assert receipt is not None
    assert receipt.status is Status.REJECTED


def test_an_empty_queue_is_never_success_by_itself(account: Account) -> None:
    upload = account.upload(KEY, good_orders(2))
    assert drain(account, upload.run_id).run() == EXIT_NO_RECEIPT


def test_a_receipt_that_another_task_wrote_is_success(account: Account) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    drain(account, None).run()
    assert drain(account, upload.run_id).run() == 0


def test_it_drains_what_belongs_to_other_runs_as_well(account: Account) -> None:
    uploads = [account.upload(f"incoming/orders/{name}.csv", good_orders(1)) for name in "abc"]
    for upload in uploads:
        account.send(upload.to_json())
    assert drain(account, uploads[0].run_id).run() == 0
    receipts = [read_receipt(account.parts.store, upload.run_id) for upload in uploads]
    assert all(receipts)
    executions = [receipt.chain.execution_arn for receipt in receipts if receipt]
    assert executions == ["arn:execution", None, None], "only its own run belongs to the execution that started it"


def test_a_message_delivered_twice_publishes_once(account: Account) -> None:
    upload = account.upload(KEY, good_orders(2))
    for _ in range(3):
        account.send(upload.to_json())
    assert drain(account, upload.run_id).run() == 0
    assert account.messages() == 0
    assert len(account.keys("data/")) == 1


def test_a_failure_that_may_pass_keeps_the_message_for_later(account: Account) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    assert drain(account, upload.run_id, Failing(TransientError("S3 is busy"))).run() == EXIT_NO_RECEIPT
    assert account.messages() == 1
    assert read_receipt(account.parts.store, upload.run_id) is None


def test_an_upload_that_meets_an_unforeseen_error_does_not_end_the_task_of_the_others(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    uploads = [account.upload(f"incoming/orders/{name}.csv", good_orders(1)) for name in "ab"]
    for upload in uploads:
        account.send(upload.to_json())
    assert drain(account, None, Failing(ValueError("4711 of the data"))).run() == 0
    receipts = [read_receipt(account.parts.store, upload.run_id) for upload in uploads]
    assert [receipt is not None for receipt in receipts] == [False, True]
    assert account.messages() == 1
    (logged,) = [record.fields["error"] for record in caplog.records if "not done" in record.message]  # type: ignore[attr-defined]
    assert "ValueError at test_drain_queue.py" in logged
    assert "4711" not in logged


def test_an_index_entry_that_somebody_else_changed_is_named_and_quotes_nothing(account: Account) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    drain(account, None).run()
    receipt = account.receipt(upload)
    assert receipt
    (entry,) = account.keys("index/")
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key=entry, Body=b'{"schema": "4711"}')
    with pytest.raises(IndexUnreadable) as error:
        index_entry(account.parts.store, receipt)
    assert "4711" not in str(error.value)


def test_a_conflict_is_over_since_a_receipt_stands(account: Account) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    drain(account, upload.run_id, Failing(ReceiptConflict("another result"))).run()
    assert account.messages() == 0


def test_being_stopped_returns_the_message_at_once(account: Account) -> None:
    upload = account.upload(KEY, good_orders(2))
    account.send(upload.to_json())
    with pytest.raises(Stopped):
        drain(account, upload.run_id, Failing(Stopped())).run()
    again = account.parts.queue.receive(wait_seconds=0)
    assert again is not None
    assert again.receive_count == 2


def test_an_unreadable_message_is_never_deleted(account: Account) -> None:
    """Its deliveries are used up at once, so that it moves to the dead-letter queue."""
    account.send("not json")
    parts = assemble(account.parts.settings.model_copy(update={"max_task_seconds": 1}))
    QueueConsumer(parts, TaskIdentity(None, None, None), FlowRunner(parts).process).run()
    assert account.messages() == 1


@pytest.mark.parametrize(
    ("bucket", "key"),
    [(PUBLISHED, "incoming/orders/x.csv"), ("another", "incoming/x.csv"), (LANDING, "receipts/x.json")],
)
def test_a_message_about_an_object_that_is_no_upload_is_refused_and_kept(
    account: Account, bucket: str, key: str
) -> None:
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key="incoming/orders/x.csv", Body=good_orders(2))
    upload = replace(account.upload("receipts/x.json", good_orders(2)), bucket=bucket, key=key, version_id=None)
    account.send(upload.to_json())
    parts = assemble(account.parts.settings.model_copy(update={"max_task_seconds": 1}))
    QueueConsumer(parts, TaskIdentity(None, None, None), FlowRunner(parts).process).run()
    assert account.messages() == 1
    assert account.keys("receipts/") == account.keys("data/") == []


def test_a_forced_attempt_is_processed_though_the_upload_has_a_receipt(account: Account) -> None:
    upload = account.upload(KEY, good_orders(2))
    for message in (upload, replace(upload, attempt=1)):
        account.send(message.to_json())
    assert drain(account, upload.run_id).run() == 0
    receipt = read_receipt(account.parts.store, upload.run_id)
    assert receipt is not None
    assert receipt.attempt == 1


def test_a_task_that_ecs_tells_half_of_who_it_is_works_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class BrokenOff(BytesIO):
        def read(self, *_: object) -> bytes:
            raise IncompleteRead(b'{"TaskARN"')

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: BrokenOff())
    assert task_identity({"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4"}).task_arn is None


def test_a_task_without_settings_says_which_in_one_json_line_and_exits_2(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SLUICE_PUBLISHED_BUCKET": "published"}
    task = subprocess.run(
        [sys.executable, "-m", "flows.drain_queue"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert task.returncode == EXIT_MISCONFIGURED
    line = json.loads(task.stdout)
    assert line["event"] == "misconfigured"
    assert "SLUICE_LANDING_BUCKET" in line["error"]
