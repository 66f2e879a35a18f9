"""A receipt is committed once, and the index refers to the newest output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from blocks.object_store import ObjectStore
from flows.pipeline.commit import commit, newest_first, read_receipt, update_index
from flows.pipeline.protocol import IndexEntry, ReceiptConflict
from flows.pipeline.receipt import Receipt, receipt_key
from lambda_trigger.message import UploadMessage
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account
from tests.unit.flows.pipeline.receipts import receipt_of, upload

KEY = "incoming/orders/monday.csv"


@pytest.fixture
def store(account: Account) -> ObjectStore:
    return account.parts.store


def raising(error: type[BaseException]) -> Callable[..., Any]:
    """Return a function that raises `error`, as if the worker died in it."""

    def die(*_: Any) -> Any:
        raise error

    return die


def put(body: bytes, key: str = KEY, bucket: str = LANDING) -> UploadMessage:
    response = boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    return UploadMessage(
        bucket=bucket,
        key=key,
        version_id=response.get("VersionId"),
        etag=response["ETag"].strip('"'),
        size_bytes=len(body),
    )


def keys_under(prefix: str) -> list[str]:
    listed = boto3.client("s3").list_objects_v2(Bucket=PUBLISHED, Prefix=prefix)
    return [entry["Key"] for entry in listed.get("Contents", [])]


def put_output(store: ObjectStore, receipt: Receipt, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"rows")
    for output in receipt.outputs:
        store.upload(output.key, file, sha256=output.sha256)


def test_a_receipt_is_committed_once_and_read_back(store: ObjectStore) -> None:
    receipt = receipt_of(upload())
    assert read_receipt(store, receipt.run_id) is None
    assert commit(store, receipt) == receipt
    assert read_receipt(store, receipt.run_id) == receipt


def test_the_object_of_a_receipt_has_its_metadata(store: ObjectStore) -> None:
    receipt = commit(store, receipt_of(upload(), published=False))
    head = boto3.client("s3").head_object(Bucket=PUBLISHED, Key=receipt_key(receipt.run_id))
    assert head["Metadata"] == receipt.metadata()


def test_committing_the_same_result_again_is_success(store: ObjectStore) -> None:
    first = commit(store, receipt_of(upload()))
    assert commit(store, receipt_of(upload(), created_at="later")) == first


def test_a_different_result_never_replaces_a_receipt(store: ObjectStore) -> None:
    first = commit(store, receipt_of(upload()))
    with pytest.raises(ReceiptConflict):
        commit(store, receipt_of(upload(), published=False))
    assert read_receipt(store, first.run_id) == first


def test_a_forced_rerun_replaces_the_receipt_of_the_attempt_before(store: ObjectStore) -> None:
    commit(store, receipt_of(upload()))
    again = receipt_of(upload(attempt=1), published=False)
    assert commit(store, again) == again
    assert read_receipt(store, again.run_id) == again


def test_an_earlier_attempt_never_replaces_a_later_one(store: ObjectStore) -> None:
    later = commit(store, receipt_of(upload(attempt=2)))
    assert commit(store, receipt_of(upload(attempt=1))) == later
    assert commit(store, receipt_of(upload())) == later


def test_a_forced_rerun_also_replaces_an_earlier_attempt_that_was_committed_meanwhile(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, receipt_of(upload()))
    put = store.put_if_unchanged
    between = [receipt_of(upload(attempt=1))]

    def another_worker_is_faster(*given: Any, **more: Any) -> bool:
        if between:
            commit(store, between.pop())
        return put(*given, **more)

    monkeypatch.setattr(store, "put_if_unchanged", another_worker_is_faster)
    later = receipt_of(upload(attempt=2))
    assert commit(store, later) == later
    assert read_receipt(store, later.run_id) == later


def test_a_reupload_replaces_the_earlier_output(store: ObjectStore, tmp_path: Path) -> None:
    old, new = receipt_of(upload(1)), receipt_of(upload(2))
    for receipt in (old, new):
        put_output(store, receipt, tmp_path)
        entry = update_index(store, receipt, replacing={"orders", "returns"})
    assert keys_under("data/") == [new.outputs[0].key]
    assert entry.retired == ()


def test_an_older_event_never_replaces_the_output_of_a_newer_version(store: ObjectStore, tmp_path: Path) -> None:
    old, new = receipt_of(upload(1)), receipt_of(upload(2))
    for receipt in (new, old):
        put_output(store, receipt, tmp_path)
        update_index(store, receipt, replacing={"orders", "returns"})
    assert keys_under("data/") == [new.outputs[0].key]


def test_s3s_list_decides_which_of_two_versions_without_sequencers_is_newer(store: ObjectStore, tmp_path: Path) -> None:
    put(b"another key", f"{KEY}.bak")
    uploads = [put(b"first"), put(b"second")]
    put(b"third")
    old, new = (receipt_of(upload) for upload in uploads)
    for receipt in (old, new, old):
        put_output(store, receipt, tmp_path)
        update_index(store, receipt, replacing={"orders", "returns"})
    assert keys_under("data/") == [new.outputs[0].key]
    assert newest_first(store, frozenset({old.run_id, new.run_id}), old) == (new.run_id, old.run_id)


def test_appending_keeps_both(store: ObjectStore, tmp_path: Path) -> None:
    for receipt in (receipt_of(upload(1)), receipt_of(upload(2))):
        put_output(store, receipt, tmp_path)
        update_index(store, receipt, replacing=())
    assert len(keys_under("data/")) == 2


def test_updating_the_index_after_a_crash_deletes_only_the_replaced_output(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died after it had written the index, but before it deleted the old output."""
    old, new = receipt_of(upload(1)), receipt_of(upload(2))
    for receipt in (old, new):
        put_output(store, receipt, tmp_path)
    update_index(store, old, replacing={"orders", "returns"})
    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            update_index(store, new, replacing={"orders", "returns"})
    assert len(keys_under("data/")) == 2
    update_index(store, new, replacing={"orders", "returns"})
    assert keys_under("data/") == [new.outputs[0].key]


def under(receipt: Receipt, dataset: str) -> Receipt:
    """Return the receipt as if the file had been processed with another dataset's contract."""
    contract = receipt.contract.model_copy(update={"dataset": dataset})
    outputs = tuple(
        output.model_copy(update={"key": output.key.replace("data/orders/", f"data/{dataset}/")})
        for output in receipt.outputs
    )
    return receipt.model_copy(update={"contract": contract, "outputs": outputs})


def test_a_forced_rerun_under_another_contract_withdraws_what_the_first_run_published(
    store: ObjectStore, tmp_path: Path
) -> None:
    first, again = receipt_of(upload(1)), under(receipt_of(upload(1, attempt=1)), "returns")
    for receipt in (first, again):
        put_output(store, receipt, tmp_path)
        update_index(store, commit(store, receipt), replacing={"orders", "returns"}, datasets=("orders", "returns"))
    assert keys_under("data/") == [again.outputs[0].key]
    assert [entry.current is None for entry in entries("orders")] == [True]
    assert [entry.current is None for entry in entries("returns")] == [False]


def test_the_dataset_of_the_committed_receipt_decides_whether_a_reupload_replaces(
    store: ObjectStore, tmp_path: Path
) -> None:
    """A slower worker, which used another contract, updates the index for the receipt that the faster one committed."""
    old, new = under(receipt_of(upload(1)), "returns"), under(receipt_of(upload(2)), "returns")
    for receipt in (old, new):
        put_output(store, receipt, tmp_path)
        update_index(store, commit(store, receipt), replacing={"orders"})
    update_index(store, receipt_of(upload(2)), replacing={"orders"})
    assert sorted(keys_under("data/")) == sorted(receipt.outputs[0].key for receipt in (old, new))


def entries(dataset: str) -> list[IndexEntry]:
    """Return all index entries of a dataset."""
    s3 = boto3.client("s3")
    found = (s3.get_object(Bucket=PUBLISHED, Key=key)["Body"].read() for key in keys_under(f"index/{dataset}/"))
    return [IndexEntry.model_validate_json(body) for body in found]
