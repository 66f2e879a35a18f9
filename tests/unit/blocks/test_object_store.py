"""The store reads the requested version, commits once, and keeps the newest output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from blocks.aws_errors import AwsCallInvalid, AwsRefused, AwsUnavailable
from blocks.object_store import ObjectArchived, ObjectGone, ObjectReplaced, ObjectStore, ObjectTooLarge
from flows.pipeline.protocol import IndexEntry, ReceiptConflict
from flows.pipeline.receipt import Receipt, receipt_key
from lambda_trigger.message import UploadMessage
from tests.unit.blocks.conftest import LANDING, PUBLISHED
from tests.unit.flows.pipeline.receipts import receipt_of, upload

KEY = "incoming/orders/monday.csv"


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
        store.put_file(output.key, file, sha256=output.sha256)


def test_the_version_of_the_event_is_read_and_not_the_newest(store: ObjectStore, tmp_path: Path) -> None:
    first = put(b"first")
    put(b"second, longer")
    facts = store.fetch(first, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert facts.size_bytes == 5


def test_a_large_version_is_read_in_ranges(store: ObjectStore, tmp_path: Path) -> None:
    body = bytes(range(256)) * (17 * 2**12)
    store.fetch(put(body), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == body


def test_a_server_that_ignores_ranges_is_read_as_one_stream(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(range(256)) * (17 * 2**12)
    message = put(body)
    ranges: list[bytes] = []

    def ignore_range(request: Any, **_: Any) -> None:
        ranges.append(request.headers.pop("Range", b""))

    session = boto3.session.Session()
    session.events.register_first("before-send.s3.GetObject", ignore_range)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    store.fetch(message, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == body
    assert ranges == [b"bytes=0-0"], "one request, and its answer is the file"


def test_a_deleted_version_is_gone(store: ObjectStore, tmp_path: Path) -> None:
    message = put(b"rows")
    boto3.client("s3").delete_object(Bucket=LANDING, Key=KEY, VersionId=str(message.version_id))
    with pytest.raises(ObjectGone, match="was deleted before it was read"):
        store.fetch(message, tmp_path / "file")


def test_an_archived_object_is_no_want_of_permission(store: ObjectStore, tmp_path: Path) -> None:
    written = boto3.client("s3").put_object(Bucket=LANDING, Key=KEY, Body=b"rows", StorageClass="GLACIER")
    message = replace(put(b"rows"), version_id=written["VersionId"])
    with pytest.raises(ObjectArchived, match="lies in an archive; restore it"):
        store.fetch(message, tmp_path / "file")


def test_without_versioning_an_overwritten_object_is_not_taken_for_the_upload(
    store: ObjectStore, tmp_path: Path
) -> None:
    boto3.client("s3").create_bucket(Bucket="plain")
    unversioned = replace(put(b"first"), bucket="plain", version_id=None)
    boto3.client("s3").put_object(Bucket="plain", Key=KEY, Body=b"second")
    with pytest.raises(ObjectReplaced):
        store.fetch(unversioned, tmp_path / "file")


def test_without_versioning_an_object_that_is_overwritten_while_it_is_read_is_not_taken_for_the_upload(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3.client("s3").create_bucket(Bucket="plain")
    unversioned = put(b"first", bucket="plain")
    download = store._s3.download_file

    def download_late(*arguments: Any, **more: Any) -> None:
        put(b"other", bucket="plain")
        download(*arguments, **more)

    monkeypatch.setattr(store._s3, "download_file", download_late)
    with pytest.raises(ObjectReplaced):
        store.fetch(unversioned, tmp_path / "file")


def test_without_versioning_an_object_that_is_deleted_once_it_was_read_is_not_lost(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3.client("s3").create_bucket(Bucket="plain")
    unversioned = put(b"first", bucket="plain")
    download = store._s3.download_file

    def delete_after(*arguments: Any, **more: Any) -> None:
        download(*arguments, **more)
        boto3.client("s3").delete_object(Bucket="plain", Key=KEY)

    monkeypatch.setattr(store._s3, "download_file", delete_after)
    store.fetch(unversioned, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_an_entry_that_is_gone_when_it_should_be_replaced_is_a_condition_that_does_not_hold(store: ObjectStore) -> None:
    assert store._put_if("index/orders/a.json", "{}", {}, {"IfMatch": '"an etag"'}) is False


def test_a_name_that_aws_cannot_have_is_no_trouble_that_passes(store: ObjectStore) -> None:
    with pytest.raises(AwsCallInvalid):
        store.facts("not a bucket", KEY)


def test_a_file_above_the_limit_is_not_downloaded(store: ObjectStore, tmp_path: Path) -> None:
    message = put(b"x" * 11)
    with pytest.raises(ObjectTooLarge, match="the limit is 10"):
        store.model_copy(update={"max_object_bytes": 10}).fetch(message, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_receipt_is_committed_once_and_read_back(store: ObjectStore) -> None:
    receipt = receipt_of(upload())
    assert store.receipt(receipt.run_id) is None
    assert store.commit(receipt) == receipt
    assert store.receipt(receipt.run_id) == receipt


def test_a_receipt_carries_its_status_where_the_state_machine_looks(store: ObjectStore) -> None:
    receipt = store.commit(receipt_of(upload(), published=False))
    head = boto3.client("s3").head_object(Bucket=PUBLISHED, Key=receipt_key(receipt.run_id))
    assert head["Metadata"] == receipt.metadata()


def test_committing_the_same_result_again_is_success(store: ObjectStore) -> None:
    first = store.commit(receipt_of(upload()))
    assert store.commit(receipt_of(upload(), created_at="later")) == first


def test_a_different_result_never_replaces_a_receipt(store: ObjectStore) -> None:
    first = store.commit(receipt_of(upload()))
    with pytest.raises(ReceiptConflict):
        store.commit(receipt_of(upload(), published=False))
    assert store.receipt(first.run_id) == first


def test_a_forced_rerun_replaces_the_receipt_of_the_attempt_before(store: ObjectStore) -> None:
    store.commit(receipt_of(upload()))
    again = receipt_of(upload(attempt=1), published=False)
    assert store.commit(again) == again
    assert store.receipt(again.run_id) == again


def test_an_earlier_attempt_never_replaces_a_later_one(store: ObjectStore) -> None:
    later = store.commit(receipt_of(upload(attempt=2)))
    assert store.commit(receipt_of(upload(attempt=1))) == later
    assert store.commit(receipt_of(upload())) == later


def test_a_forced_rerun_also_replaces_an_earlier_attempt_that_was_committed_while_it_looked(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(receipt_of(upload()))
    between, put_if = receipt_of(upload(attempt=1)), store._put_if
    commits: list[Receipt] = [between]

    def somebody_is_faster(*arguments: Any, **more: Any) -> bool:
        if commits:
            store.commit(commits.pop())
        return put_if(*arguments, **more)

    monkeypatch.setattr(type(store), "_put_if", lambda _self, *given, **more: somebody_is_faster(*given, **more))
    later = receipt_of(upload(attempt=2))
    assert store.commit(later) == later
    assert store.receipt(later.run_id) == later


def test_a_reupload_replaces_the_earlier_output(store: ObjectStore, tmp_path: Path) -> None:
    old, new = receipt_of(upload(1)), receipt_of(upload(2))
    for receipt in (old, new):
        put_output(store, receipt, tmp_path)
        entry = store.settle(receipt, replaces=lambda _: True)
    assert keys_under("data/") == [new.outputs[0].key]
    assert entry.retired == ()


def test_an_older_event_never_replaces_the_output_of_a_newer_version(store: ObjectStore, tmp_path: Path) -> None:
    old, new = receipt_of(upload(1)), receipt_of(upload(2))
    for receipt in (new, old):
        put_output(store, receipt, tmp_path)
        store.settle(receipt, replaces=lambda _: True)
    assert keys_under("data/") == [new.outputs[0].key]


def test_s3s_own_list_says_which_of_two_versions_without_sequencers_is_newer(
    store: ObjectStore, tmp_path: Path
) -> None:
    put(b"another key", f"{KEY}.bak")
    uploads = [put(b"first"), put(b"second")]
    put(b"third")
    old, new = (receipt_of(upload) for upload in uploads)
    for receipt in (old, new, old):
        put_output(store, receipt, tmp_path)
        store.settle(receipt, replaces=lambda _: True)
    assert keys_under("data/") == [new.outputs[0].key]
    assert store.order_of(frozenset({old.run_id, new.run_id}), old) == (new.run_id, old.run_id)


def test_appending_keeps_both(store: ObjectStore, tmp_path: Path) -> None:
    for receipt in (receipt_of(upload(1)), receipt_of(upload(2))):
        put_output(store, receipt, tmp_path)
        store.settle(receipt, replaces=lambda _: False)
    assert len(keys_under("data/")) == 2


def test_settling_after_a_crash_deletes_what_was_listed_and_no_more(store: ObjectStore, tmp_path: Path) -> None:
    """The worker died after it had written the index and before it deleted the old output."""
    old, new = receipt_of(upload(1)), receipt_of(upload(2))
    for receipt in (old, new):
        put_output(store, receipt, tmp_path)
    store.settle(old, replaces=lambda _: True)
    real_delete = store._s3.delete_object

    def die(**_: Any) -> Any:
        raise KeyboardInterrupt

    store._s3.delete_object = die
    with pytest.raises(KeyboardInterrupt):
        store.settle(new, replaces=lambda _: True)
    store._s3.delete_object = real_delete
    assert len(keys_under("data/")) == 2
    store.settle(new, replaces=lambda _: True)
    assert keys_under("data/") == [new.outputs[0].key]


def test_an_output_that_lies_there_already_is_not_uploaded_again(store: ObjectStore, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"rows")
    store.put_file("data/orders/x.parquet", file, sha256="aa")
    before = boto3.client("s3").head_object(Bucket=PUBLISHED, Key="data/orders/x.parquet")["LastModified"]
    file.write_bytes(b"would be seen")
    store.put_file("data/orders/x.parquet", file, sha256="aa")
    after = boto3.client("s3").get_object(Bucket=PUBLISHED, Key="data/orders/x.parquet")
    assert after["Body"].read() == b"rows"
    assert after["LastModified"] == before


def test_a_refused_upload_is_told_from_an_unavailable_s3(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 wraps S3's response in one of its errors."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject")  # type: ignore[typeddict-item]

    monkeypatch.setattr(store._s3, "put_object", refuse)
    file = tmp_path / "x.parquet"
    file.write_bytes(b"rows")
    with pytest.raises(AwsRefused):
        store.put_file("data/orders/x.parquet", file, sha256="aa")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("SlowDown", 503, AwsUnavailable),
        ("InternalError", 500, AwsUnavailable),
        ("AccessDenied", 403, AwsRefused),
        ("ExpiredToken", 400, AwsRefused),
    ],
)
def test_an_aws_error_is_named_for_what_it_means(
    store: ObjectStore, code: str, status: int, expected: type[Exception]
) -> None:
    def refuse(**_: Any) -> Any:
        raise ClientError(
            {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
            "GetObject",
        )

    store._s3.get_object = refuse
    with pytest.raises(expected, match=r"receipts/abc\.json"):
        store.receipt("abc")


def under(receipt: Receipt, dataset: str) -> Receipt:
    """The receipt as if another dataset's contract had judged the file."""
    contract = receipt.contract.model_copy(update={"dataset": dataset})
    outputs = tuple(
        output.model_copy(update={"key": output.key.replace("data/orders/", f"data/{dataset}/")})
        for output in receipt.outputs
    )
    return receipt.model_copy(update={"contract": contract, "outputs": outputs})


def test_a_forced_rerun_under_another_contract_takes_back_what_the_first_one_published(
    store: ObjectStore, tmp_path: Path
) -> None:
    first, again = receipt_of(upload(1)), under(receipt_of(upload(1, attempt=1)), "returns")
    for receipt in (first, again):
        put_output(store, receipt, tmp_path)
        store.settle(store.commit(receipt), replaces=lambda _: True, datasets=("orders", "returns"))
    assert keys_under("data/") == [again.outputs[0].key]
    assert [entry.current is None for entry in entries("orders")] == [True]
    assert [entry.current is None for entry in entries("returns")] == [False]


def test_the_dataset_whose_receipt_stands_says_whether_a_reupload_replaces(store: ObjectStore, tmp_path: Path) -> None:
    """A worker that judged by another contract comes late, and settles for the one that was faster."""
    old, new = under(receipt_of(upload(1)), "returns"), under(receipt_of(upload(2)), "returns")
    for receipt in (old, new):
        put_output(store, receipt, tmp_path)
        store.settle(store.commit(receipt), replaces=lambda dataset: dataset == "orders")
    store.settle(receipt_of(upload(2)), replaces=lambda dataset: dataset == "orders")
    assert sorted(keys_under("data/")) == sorted(receipt.outputs[0].key for receipt in (old, new))


def entries(dataset: str) -> list[IndexEntry]:
    """The index of a dataset."""
    s3 = boto3.client("s3")
    found = (s3.get_object(Bucket=PUBLISHED, Key=key)["Body"].read() for key in keys_under(f"index/{dataset}/"))
    return [IndexEntry.model_validate_json(body) for body in found]
