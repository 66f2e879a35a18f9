"""Reconciling finds lost uploads, queues each once, and changes nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from moto import mock_aws

import flows.reconcile
from blocks.aws_errors import AwsUnavailable
from blocks.executions import Executions
from flows.reconcile import ReconcileResult, Window, find_lost, reconcile, reconcile_summary
from lambda_trigger.ignored_names import IGNORED_NAMES, is_ignored
from lambda_trigger.message import UploadMessage
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account

MACHINE = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
_ALL = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass
class Landing:
    """A landing bucket with the state of its uploads."""

    account: Account
    executions: Executions

    def look(self, window: Window = _ALL, *, max_found: int = 100, page_size: int = 1000) -> ReconcileResult:
        store = self.account.parts.store
        return find_lost(
            store,
            self.executions,
            window,
            "incoming/",
            max_found,
            is_data=lambda key: not is_ignored(key, "incoming/", IGNORED_NAMES),
            page_size=page_size,
        )

    def upload(self, name: str, body: bytes = b"a\n1\n") -> UploadMessage:
        return self.account.upload(f"incoming/{name}", body)

    def finish(self, upload: UploadMessage) -> None:
        key = f"receipts/{upload.run_id}.json"
        boto3.client("s3").put_object(Bucket=PUBLISHED, Key=key, Body=b"of some later schema")


@pytest.fixture
def landing(account: Account) -> Iterator[Landing]:
    with mock_aws():
        arn = boto3.client("stepfunctions").create_state_machine(
            name="process-upload", definition=json.dumps(MACHINE), roleArn="arn:aws:iam::123456789012:role/machine"
        )["stateMachineArn"]
        yield Landing(account, Executions(state_machine_arn=arn, queue_url=account.parts.queue.queue_url))


def _runs_of(found: ReconcileResult) -> list[str]:
    return [upload.run_id for upload in found.lost]


def test_an_upload_without_receipt_and_execution_is_lost(landing: Landing) -> None:
    done, lost = landing.upload("done.csv"), landing.upload("lost.csv")
    landing.finish(done)
    found = landing.look()
    assert (found.looked_at, _runs_of(found)) == (2, [lost.run_id])


def test_what_is_lost_is_handed_over_under_the_run_id_that_its_event_would_have_given(landing: Landing) -> None:
    upload = landing.upload("orders/lost file.csv")
    (lost,) = landing.look().lost
    landing.executions.dispatch(lost)
    (message,) = boto3.client("sqs").receive_message(QueueUrl=landing.account.parts.queue.queue_url)["Messages"]
    told = UploadMessage.from_json(message["Body"])
    assert (told.run_id, told.execution_name) == (upload.run_id, upload.execution_name)
    assert landing.executions.status(upload) is not None
    assert landing.look().lost == []


def test_every_version_of_a_key_is_an_upload_and_a_deletion_is_none(landing: Landing) -> None:
    versions = [landing.upload("twice.csv", body) for body in (b"a\n1\n", b"a\n2\n")]
    boto3.client("s3").delete_object(Bucket=LANDING, Key="incoming/twice.csv")
    assert set(_runs_of(landing.look())) == {version.run_id for version in versions}


def test_folder_markers_and_other_prefixes_are_no_uploads(landing: Landing) -> None:
    landing.upload("orders/", b"")
    landing.account.upload("elsewhere/a.csv", b"a\n1\n")
    assert landing.look() == ReconcileResult()


def test_a_file_whose_name_ends_in_a_slash_is_an_upload(landing: Landing) -> None:
    upload = landing.upload("orders/")
    assert _runs_of(landing.look()) == [upload.run_id]


def test_what_is_younger_than_the_grace_or_older_than_the_lookback_is_left_alone(landing: Landing) -> None:
    landing.upload("young.csv")
    now, hour = datetime.now(UTC), timedelta(hours=1)
    assert landing.look(Window(now - 2 * hour, now - hour)) == ReconcileResult()
    assert landing.look(Window(now + hour, now + 2 * hour)) == ReconcileResult()
    assert len(landing.look(Window(now - hour, now + hour)).lost) == 1


def test_an_upload_that_runs_is_under_way(landing: Landing) -> None:
    landing.executions.dispatch(landing.upload("runs.csv"))  # moto's executions run until they are stopped
    found = landing.look()
    assert (found.under_way, found.lost, found.given_up) == (1, [], [])


def test_an_upload_that_was_given_up_is_told_of_and_not_taken_for_lost(landing: Landing) -> None:
    upload = landing.upload("given-up.csv")
    execution = landing.executions.dispatch(upload).execution_arn
    assert execution is not None
    boto3.client("stepfunctions").stop_execution(executionArn=execution)
    found = landing.look()
    assert (found.lost, found.given_up_count) == ([], 1)
    assert [(given_up.run_id, status) for given_up, status in found.given_up] == [(upload.run_id, "ABORTED")]


def test_a_large_bucket_is_read_in_pages_and_one_run_finds_no_more_than_it_may(landing: Landing) -> None:
    uploads = [landing.upload(f"{number:02}.csv") for number in range(7)]
    assert len(landing.look(page_size=2).lost) == 7
    first = landing.look(max_found=3, page_size=2)
    assert (_runs_of(first), first.more) == ([upload.run_id for upload in uploads[:3]], True)
    for upload in first.lost:
        landing.executions.dispatch(upload)
    second = landing.look(max_found=3, page_size=2)
    assert _runs_of(second) == [upload.run_id for upload in uploads[3:6]]


def test_an_upload_to_a_bucket_without_versioning_is_told_of_and_not_guessed_at(landing: Landing) -> None:
    s3 = boto3.client("s3")
    s3.put_bucket_versioning(Bucket=LANDING, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=LANDING, Key="incoming/null.csv", Body=b"a\n1\n")
    found = landing.look()
    assert (found.looked_at, found.unidentified, found.lost) == (1, 1, [])


def test_lost_uploads_are_handed_over_though_the_published_bucket_cannot_be_tidied(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.upload("a.csv")

    def busy(*_: object) -> Iterator[str]:
        raise AwsUnavailable("S3 is busy")

    monkeypatch.setattr(flows.reconcile, "parts_of_environment", lambda: landing.account.parts)
    monkeypatch.setattr(flows.reconcile, "_executions_of", lambda _: landing.executions)
    monkeypatch.setattr(flows.reconcile, "get_run_logger", logging.getLogger)
    monkeypatch.setattr(flows.reconcile, "find_orphaned", busy)
    with pytest.raises(AwsUnavailable):
        reconcile.fn(grace_minutes=0)
    assert landing.account.messages() == 1


def test_the_summary_says_what_to_do() -> None:
    upload = UploadMessage(bucket="b", key="k", version_id="v", etag="e", size_bytes=1)
    found = replace(ReconcileResult(), looked_at=3, lost=[upload], given_up_count=2, unidentified=1, more=True)
    said = reconcile_summary(
        found, Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)), dry_run=True
    )
    for part in ("**3** uploads", "**1** have neither", "dry run", "next run continues", "redrive", "versioning on"):
        assert part in said


def test_files_that_the_trigger_ignores_are_not_lost(landing: Landing) -> None:
    landing.upload("orders/_SUCCESS")
    lost = landing.upload("orders/lost.csv")
    assert _runs_of(landing.look()) == [lost.run_id]
