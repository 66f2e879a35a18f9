"""The record of an upload's last failed attempt states why the upload has no receipt yet."""

from __future__ import annotations

import pytest

from blocks.aws_errors import AwsUnavailable
from flows.pipeline.attempts import (
    Attempt,
    AttemptUnreadable,
    attempt_key,
    read_attempt,
    remove_attempt,
    runs_with_attempt,
    write_attempt,
)
from flows.pipeline.errors import UploadCancelled
from flows.refinery.errors import SluiceError
from lambda_trigger.message import UploadMessage
from tests.unit.flows.conftest import Account

UPLOAD = UploadMessage(bucket="landing", key="incoming/orders/a.csv", version_id="v1", etag="e", size_bytes=3)


def attempt(error: SluiceError) -> Attempt:
    return Attempt.of(UPLOAD, error, dataset="orders", receive_count=2, task_arn=None)


def test_an_attempt_names_class_code_and_kind_of_the_error() -> None:
    away, cancelled = attempt(AwsUnavailable("S3 is away")), attempt(UploadCancelled("by hand"))
    assert (away.error, away.code, away.transient) == ("AwsUnavailable", "aws_unavailable", True)
    assert (cancelled.error, cancelled.code, cancelled.transient) == ("UploadCancelled", "upload_cancelled", False)


def test_the_last_attempt_is_kept_until_it_is_removed(account: Account) -> None:
    store = account.parts.store
    write_attempt(store, attempt(AwsUnavailable("first")))
    write_attempt(store, attempt(AwsUnavailable("second")))
    found = read_attempt(store, UPLOAD.run_id)
    assert found is not None
    assert (found.message, found.upload) == ("second", UPLOAD)
    assert [run_id for run_id, _ in runs_with_attempt(store)] == [UPLOAD.run_id]
    remove_attempt(store, UPLOAD.run_id)
    assert read_attempt(store, UPLOAD.run_id) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}'])
def test_an_invalid_attempt_is_reported_as_unreadable(account: Account, text: str) -> None:
    store = account.parts.store
    store.put(attempt_key(UPLOAD.run_id), text)
    with pytest.raises(AttemptUnreadable):
        read_attempt(store, UPLOAD.run_id)
