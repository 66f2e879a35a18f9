"""The Lambda recognizes which records of an S3 event are uploads."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_trigger.events import EventUnreadable, Ignored, RecordUnreadable, read_record, records_of_event
from lambda_trigger.message import UploadMessage

BUCKET = "amzn-s3-demo-bucket"


def read(record: object) -> UploadMessage | Ignored:
    return read_record(record, bucket=BUCKET, incoming_prefix="incoming/")


def with_object(event: dict[str, Any], **fields: object) -> dict[str, Any]:
    record: dict[str, Any] = event["Records"][0]
    record["s3"]["object"].update(fields)
    return record


def test_an_upload_becomes_a_message_with_its_version_and_order(s3_put: dict[str, Any]) -> None:
    assert read(s3_put["Records"][0]) == UploadMessage(
        bucket=BUCKET,
        key="incoming/orders/HappyFace.csv",
        version_id="096fKKXTRTtl3on89fVO.nfljtsv6qko",
        etag="d41d8cd98f00b204e9800998ecf8427e",
        size_bytes=1024,
        sequencer="0055AED6DCD90281E5",
        event_time="1970-01-01T00:00:00.000Z",
    )


@pytest.mark.parametrize(
    "name",
    [
        *(
            "orders/_SUCCESS",
            "orders/_temporary/0/part-0.csv",
            "_staging/orders.csv",
            "orders/.DS_Store",
            ".git/config",
        ),
        *(
            "orders/~$book.xlsx",
            "orders/day.csv.TMP",
            "orders/day.csv.filepart",
            "orders/day.csv.part",
            "orders/.a.crc",
        ),
    ],
)
def test_markers_and_unfinished_files_are_not_data(s3_put: dict[str, Any], name: str) -> None:
    key = f"incoming/{name}"
    assert read(with_object(s3_put, key=quote_plus(key, safe="/"))) == Ignored("not_data", key)


@pytest.mark.parametrize(
    "name", ["orders/a_b.csv", "orders/a.b/c.csv", "orders/../x.csv", "orders/part-0.csv", "tmp/a.csv"]
)
def test_ordinary_names_are_data(s3_put: dict[str, Any], name: str) -> None:
    assert isinstance(read(with_object(s3_put, key=f"incoming/{name}")), UploadMessage)


def test_a_setting_lists_the_names_that_are_not_data(s3_put: dict[str, Any]) -> None:
    for name, is_data in (("a.bak", False), ("done/a.csv", False), ("_a.csv", True)):
        record = with_object(s3_put, key=f"incoming/{name}")
        read_as = read_record(record, bucket=BUCKET, incoming_prefix="incoming/", ignored_names="*.bak, DONE")
        assert isinstance(read_as, UploadMessage) is is_data


@pytest.mark.parametrize(
    "key",
    ["a b.csv", "a+b.csv", "é.csv", "100%2F.csv", "100%.csv", "日本.csv", "🐧.csv", "a&b=c?.csv", "../../receipts/x"],
)
def test_keys_are_decoded_as_s3_encodes_them(s3_put: dict[str, Any], key: str) -> None:
    record = with_object(s3_put, key=quote_plus(f"incoming/orders/{key}", safe="/"))
    upload = read(record)
    assert isinstance(upload, UploadMessage)
    assert upload.key == f"incoming/orders/{key}"


def test_a_key_of_1024_bytes_is_accepted_and_a_longer_one_is_not(s3_put: dict[str, Any]) -> None:
    longest = "incoming/" + "é" * 507 + "x"
    assert len(longest.encode()) == 1024
    assert isinstance(read(with_object(s3_put, key=quote_plus(longest, safe="/"))), UploadMessage)
    with pytest.raises(RecordUnreadable):
        read(with_object(s3_put, key=quote_plus(longest + "x", safe="/")))


def test_a_file_whose_name_ends_in_a_slash_becomes_a_message(s3_put: dict[str, Any]) -> None:
    upload = read(with_object(s3_put, key="incoming/orders/", size=1))
    assert isinstance(upload, UploadMessage)
    assert upload.key == "incoming/orders/"


@pytest.mark.parametrize(
    ("event_name", "key", "reason"),
    [
        ("ObjectRemoved:Delete", "incoming/orders/x.csv", "not_an_upload"),
        ("ObjectRemoved:DeleteMarkerCreated", "incoming/orders/x.csv", "not_an_upload"),
        ("ObjectRestore:Completed", "incoming/orders/x.csv", "not_an_upload"),
        ("ObjectCreated:Put", "data/orders/x.parquet", "other_prefix"),
        ("ObjectCreated:Put", "incoming", "other_prefix"),
        ("ObjectCreated:Put", "incoming/orders/", "folder_marker"),
        ("ObjectCreated:Copy", "incoming/", "folder_marker"),
    ],
)
def test_records_that_are_not_uploads_are_ignored_with_a_reason(
    s3_put: dict[str, Any], event_name: str, key: str, reason: str
) -> None:
    record = with_object(s3_put, key=key, size=0)
    record["eventName"] = event_name
    ignored = read(record)
    assert isinstance(ignored, Ignored)
    assert ignored.reason == reason


def test_another_bucket_is_ignored(s3_put: dict[str, Any]) -> None:
    s3_put["Records"][0]["s3"]["bucket"]["name"] = "elsewhere"
    ignored = read(s3_put["Records"][0])
    assert isinstance(ignored, Ignored)
    assert ignored.reason == "other_bucket"


def test_an_empty_object_is_an_upload_so_that_its_rejection_can_be_seen(s3_put: dict[str, Any]) -> None:
    assert isinstance(read(with_object(s3_put, size=0)), UploadMessage)


@pytest.mark.parametrize("missing", ["key", "size", "eTag"])
def test_a_record_without_a_field_is_rejected_with_the_name_of_the_field(s3_put: dict[str, Any], missing: str) -> None:
    del s3_put["Records"][0]["s3"]["object"][missing]
    with pytest.raises(RecordUnreadable) as raised:
        read(s3_put["Records"][0])
    assert f"s3.object.{missing}" in str(raised.value)


def test_an_unversioned_upload_has_no_version(s3_put: dict[str, Any]) -> None:
    del s3_put["Records"][0]["s3"]["object"]["versionId"]
    upload = read(s3_put["Records"][0])
    assert isinstance(upload, UploadMessage)
    assert upload.version_id is None


def test_the_null_version_of_a_suspended_bucket_is_not_used(s3_put: dict[str, Any]) -> None:
    upload = read(with_object(s3_put, versionId="null"))
    assert isinstance(upload, UploadMessage)
    assert upload.version_id is None


def test_the_test_event_has_no_records(s3_test_event: dict[str, Any]) -> None:
    assert records_of_event(s3_test_event) == []


@pytest.mark.parametrize("event", [{}, {"Records": None}, {"Records": {}}, [], None, "text", 7, {"detail": {}}])
def test_an_event_that_is_not_from_s3_is_rejected(event: object) -> None:
    with pytest.raises(EventUnreadable):
        records_of_event(event)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["s3", "object", "key", "size", "bucket", "name", "eventName", "eTag"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(record=anything)
def test_any_record_is_read_ignored_or_rejected(record: object) -> None:
    try:
        outcome = read(record)
    except RecordUnreadable:
        return
    assert isinstance(outcome, UploadMessage | Ignored)
