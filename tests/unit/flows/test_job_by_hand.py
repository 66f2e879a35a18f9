"""A manual run processes an object under the same identity that the Lambda would have given its upload."""

from __future__ import annotations

import shlex

import boto3
import pytest

from flows.pipeline import run
from flows.pipeline.errors import StageTookTooLong
from flows.pipeline.run import run_upload
from flows.pipeline.time_limit import TimeIsUp
from flows.process_upload import ParametersWrong, job_by_hand
from tests.chain.files import good_orders
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account

KEY = "incoming/orders/monday.csv"


@pytest.mark.parametrize(
    ("key", "bucket"), [(KEY, PUBLISHED), (f"s3://{PUBLISHED}/{KEY}", ""), ("receipts/1.json", ""), ("incoming", "")]
)
def test_an_object_that_is_not_an_upload_is_rejected(account: Account, key: str, bucket: str) -> None:
    with pytest.raises(ParametersWrong, match=f"s3://{LANDING}/incoming/"):
        job_by_hand(account.parts, key, bucket)


def test_the_command_that_lists_the_versions_of_a_missing_object_quotes_its_key(account: Account) -> None:
    key = 'incoming/orders/Mia\'s "best" orders.csv'
    with pytest.raises(ParametersWrong) as raised:
        job_by_hand(account.parts, key)
    assert shlex.split(str(raised.value).partition("aws s3api")[2])[-1] == key


def test_a_manual_run_that_takes_too_long_does_not_claim_to_be_repeated(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refine(*_: object) -> None:
        raise TimeIsUp

    monkeypatch.setattr(run, "refine", refine)
    account.upload(KEY, good_orders(2))
    with pytest.raises(StageTookTooLong, match="Start it again"):
        run_upload(account.parts, job_by_hand(account.parts, KEY))


@pytest.fixture
def unversioned(account: Account) -> Account:
    """Return an account whose landing bucket never had versioning."""
    boto3.client("s3").delete_bucket(Bucket=LANDING)
    boto3.client("s3").create_bucket(Bucket=LANDING)
    return account


def test_an_object_without_versions_is_processed_once_whoever_starts_it(unversioned: Account) -> None:
    account = unversioned
    processed = account.process(account.upload(KEY, good_orders(2), sequencer="0066A0"))
    for _ in range(2):
        job = job_by_hand(account.parts, KEY)
        assert job.upload.run_id == processed.run_id
        assert run_upload(account.parts, job) == processed
    forced = job_by_hand(account.parts, KEY, force=True)
    assert (forced.upload.run_id, forced.upload.attempt) == (processed.run_id, 1)


def test_an_object_without_versions_that_was_written_again_is_another_upload(unversioned: Account) -> None:
    account = unversioned
    processed = account.process(account.upload(KEY, good_orders(2)))
    account.upload(KEY, good_orders(3))
    assert job_by_hand(account.parts, KEY).upload.run_id != processed.run_id
