"""The search for orphaned outputs finds those that no receipt names, but none that may still be needed."""

from __future__ import annotations

from datetime import datetime
from threading import Barrier

import boto3
import pytest

from blocks.object_store import ObjectStore
from flows.pipeline.commit import find_orphaned
from flows.pipeline.receipt import Receipt, receipt_key
from lambda_trigger.message import UploadMessage
from tests.unit.flows.conftest import PUBLISHED, Account

_KEY = "incoming/other/day.csv"


def _published(account: Account, upload: UploadMessage) -> Receipt:
    return account.process(upload)


def _write(run_id: str, attempt: int = 0) -> str:
    """Write an output, as if a worker had then been killed before it committed; return the object key."""
    key = f"data/default/other/{run_id}-{attempt}-{'0' * 16}.parquet"
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key=key, Body=b"rows")
    return key


def _found(account: Account) -> list[str]:
    return list(find_orphaned(account.parts, lambda _: True))


def test_an_output_that_the_receipt_does_not_name_is_found(account: Account) -> None:
    receipt = _published(account, account.upload(_KEY, b"a\n1\n"))
    left = _write(receipt.run_id)
    assert receipt.outputs[0].key in account.keys("data/")
    assert _found(account) == [left]


def test_outputs_that_may_still_be_committed_are_not_found(account: Account) -> None:
    receipt = _published(account, account.upload(_KEY, b"a\n1\n"))
    _write(receipt.run_id, attempt=1)  # from a forced re-run that is still in progress
    _write("f" * 32)  # from a first attempt that is still in progress
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key="data/orders/somebody's own.parquet", Body=b"rows")
    assert _found(account) == []


def test_a_receipt_of_a_later_release_does_not_hide_the_orphans_of_other_runs(account: Account) -> None:
    receipt, other = (_published(account, account.upload(f"incoming/other/{day}.csv", b"a\n1\n")) for day in "ab")
    left = [_write(each.run_id) for each in (receipt, other)]
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key=receipt_key(receipt.run_id), Body=b'{"schema": 2}')
    assert _found(account) == left[1:]


def test_the_receipts_of_several_runs_are_read_in_parallel(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Barrier(2, timeout=10)

    def look(*_: object) -> None:
        both.wait()

    monkeypatch.setattr(ObjectStore, "get", look)
    for run_id in ("e" * 32, "f" * 32):
        _write(run_id)
    assert _found(account) == []


def test_an_output_that_was_replaced_and_written_again_is_found(account: Account) -> None:
    first = _published(account, account.upload(_KEY, b"a\n1\n", "0001"))
    second = _published(account, account.upload(_KEY, b"a\n2\n", "0002"))
    again = first.outputs[0].key
    assert again not in account.keys("data/")
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key=again, Body=b"rows")
    assert second.outputs[0].key in account.keys("data/")
    assert _found(account) == [again]


def test_only_outputs_that_were_written_in_the_window_are_looked_at(account: Account) -> None:
    receipt = _published(account, account.upload(_KEY, b"a\n1\n"))
    _write(receipt.run_id)

    def never(_: datetime) -> bool:
        return False

    assert list(find_orphaned(account.parts, never)) == []
