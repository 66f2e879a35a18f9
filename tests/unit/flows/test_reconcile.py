"""Reconciling queues each lost upload once, and changes nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

import flows.reconcile
from blocks.aws_errors import AwsUnavailable
from blocks.drains import Drains
from flows.pipeline.attempts import Attempt, read_attempt, write_attempt
from flows.pipeline.errors import OutOfMemory
from flows.pipeline.held_uploads import HeldUploads
from flows.pipeline.lost_uploads import FoundUploads, GivenUp, Window
from flows.reconcile import Reconciled, reconcile, reconcile_summary
from lambda_trigger.message import UploadMessage
from tests.unit.empty_account import empty_account
from tests.unit.flows.conftest import Account

MACHINE = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}


@dataclass
class Reconciling:
    """An account whose uploads can be reconciled. `rows` is the table that the last run reported."""

    account: Account
    rows: list[dict[str, Any]]

    def run(self, **options: Any) -> list[str]:
        assert reconcile.fn(grace_minutes=0, **options).is_completed()
        return [row["done"] for row in self.rows]


@pytest.fixture
def reconciling(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reconciling]:
    with empty_account():
        arn = boto3.client("stepfunctions").create_state_machine(
            name="drain", definition=json.dumps(MACHINE), roleArn="arn:aws:iam::123456789012:role/machine"
        )["stateMachineArn"]
        drains = Drains(
            state_machine_arn=arn,
            queue_url=account.parts.queue.queue_url,
            published_bucket=account.parts.settings.published_bucket,
            window_seconds=60,
        )
        given = Reconciling(account, [])

        def keep_table(*, table: list[dict[str, Any]], **_: object) -> None:
            given.rows = table

        monkeypatch.setattr(flows.reconcile, "parts_of_environment", lambda: account.parts)
        monkeypatch.setattr(flows.reconcile, "_drains_of", lambda _: drains)
        monkeypatch.setattr(flows.reconcile, "get_run_logger", logging.getLogger)
        monkeypatch.setattr(flows.reconcile, "create_table_artifact", keep_table)
        yield given


def test_a_lost_upload_is_sent_under_the_run_id_of_its_event(reconciling: Reconciling) -> None:
    upload = reconciling.account.upload("incoming/orders/lost file.csv", b"a\n1\n")
    assert reconciling.run() == ["dispatched"]
    queue_url = reconciling.account.parts.queue.queue_url
    (message,) = boto3.client("sqs").receive_message(QueueUrl=queue_url)["Messages"]
    assert UploadMessage.from_json(message["Body"]).run_id == upload.run_id


def test_an_upload_that_was_sent_is_not_lost_again_while_its_message_may_wait(reconciling: Reconciling) -> None:
    upload = reconciling.account.upload("incoming/a.csv", b"a\n1\n")
    reconciling.run()
    attempt = read_attempt(reconciling.account.parts.store, upload.run_id)
    assert attempt is not None
    assert (attempt.code, attempt.given_up) == ("event_lost", False)
    assert reconciling.run() == []
    assert reconciling.account.messages() == 1


def test_a_dry_run_sends_nothing_and_writes_nothing(reconciling: Reconciling) -> None:
    reconciling.account.upload("incoming/a.csv", b"a\n1\n")
    assert reconciling.run(dry_run=True) == ["would be dispatched"]
    assert reconciling.account.messages() == 0
    assert reconciling.account.keys() == []


def test_a_prefix_that_no_upload_can_have_fails_instead_of_finding_nothing(reconciling: Reconciling) -> None:
    reconciling.account.upload("orders/a.csv", b"a\n1\n")
    assert reconcile.fn(grace_minutes=0, prefix="orders/").is_failed()
    assert reconciling.account.messages() == 0


def test_an_upload_that_was_given_up_is_listed_with_its_reason_and_sent_only_on_request(
    reconciling: Reconciling,
) -> None:
    upload, store = reconciling.account.upload("incoming/a.csv", b"a\n1\n"), reconciling.account.parts.store
    error = OutOfMemory("give the task 4096 MiB")
    write_attempt(store, Attempt.of(upload, error, dataset="orders", receive_count=5, task_arn=None, given_up=True))
    assert reconciling.run() == ["redrive its message"]
    assert "OutOfMemory: give the task 4096 MiB" in reconciling.rows[0]["what"]
    assert reconciling.account.messages() == 0
    assert reconciling.run(given_up_too=True) == ["dispatched"]
    assert reconciling.account.messages() == 1
    attempt = read_attempt(store, upload.run_id)
    assert attempt is not None
    assert (attempt.given_up, attempt.code) == (False, "out_of_memory")


def test_lost_uploads_are_sent_even_if_orphaned_outputs_cannot_be_found(
    reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciling.account.upload("incoming/a.csv", b"a\n1\n")

    def busy(*_: object) -> Iterator[str]:
        raise AwsUnavailable("S3 is busy")

    monkeypatch.setattr(flows.reconcile, "find_orphaned", busy)
    with pytest.raises(AwsUnavailable):
        reconciling.run()
    assert reconciling.account.messages() == 1


def test_the_summary_states_what_was_found_and_what_to_do() -> None:
    upload = UploadMessage(bucket="b", key="k", version_id="v", etag="e", size_bytes=1)
    window = Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
    given_up = [GivenUp(upload, "why")]
    found = FoundUploads(3, lost=[upload], given_up=given_up, given_up_count=2, unidentified=1, more=True)
    held = HeldUploads(unreadable={"batches/t/1.json": "not a note"})
    said = reconcile_summary(Reconciled(found, window, age_known=False, held=held), dry_run=True)
    for part in (
        "**3** uploads",
        "**1** are lost",
        "dry run",
        "next run continues",
        "sluice redrive",
        "versioning on",
        "batches/t/1.json",
        "when the queue is empty",
    ):
        assert part in said
