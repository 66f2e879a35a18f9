"""The object store reads exactly the requested version, in one piece or in ranges, and uploads an output once."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from blocks import object_store
from blocks.aws_errors import AwsCallInvalid, AwsRefused, AwsUnavailable
from blocks.object_store import ObjectArchived, ObjectGone, ObjectStore, PendingUpload, StoredObject
from lambda_trigger.message import UploadMessage
from tests.faults.in_memory_aws import InMemoryS3
from tests.unit.blocks.conftest import LANDING, PUBLISHED

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


def test_the_version_of_the_event_is_read_and_not_the_newest(store: ObjectStore, tmp_path: Path) -> None:
    first = put(b"first")
    put(b"second, longer")
    facts = store.head(LANDING, KEY, first.version_id)
    store.download(LANDING, KEY, tmp_path / "file", first.version_id)
    assert (tmp_path / "file").read_bytes() == b"first"
    assert facts.size_bytes == 5


def test_a_write_that_s3_declines_because_of_another_one_is_reported() -> None:
    class BusyS3:
        def put_object(self, **_: object) -> None:
            response: Any = {"Error": {"Code": "OperationAborted"}, "ResponseMetadata": {"HTTPStatusCode": 409}}
            raise ClientError(response, "PutObject")

    with pytest.raises(AwsUnavailable, match=r"attempts/1\.json"):
        ObjectStore(LANDING, PUBLISHED, client=BusyS3()).put("attempts/1.json", "{}")


def test_a_large_version_is_read_in_ranges(store: ObjectStore, tmp_path: Path) -> None:
    body = bytes(range(256)) * (17 * 2**12)
    store.download(LANDING, KEY, tmp_path / "file", put(body).version_id)
    assert (tmp_path / "file").read_bytes() == body


def test_a_server_that_ignores_ranges_is_read_as_one_stream(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(range(256)) * (17 * 2**12)
    version_id = put(body).version_id
    ranges: list[bytes] = []

    def ignore_range(request: Any, **_: Any) -> None:
        ranges.append(request.headers.pop("Range", b""))

    session = boto3.session.Session()
    session.events.register_first("before-send.s3.GetObject", ignore_range)
    with monkeypatch.context() as patch:
        patch.setattr(boto3, "DEFAULT_SESSION", session)
        store.download(LANDING, KEY, tmp_path / "file", version_id)
    assert (tmp_path / "file").read_bytes() == body
    assert ranges == [b"", b"bytes=0-0"], "the second one shows that ranges are ignored; the first answer is the file"


def test_a_deleted_version_is_gone(store: ObjectStore, tmp_path: Path) -> None:
    message = put(b"rows")
    boto3.client("s3").delete_object(Bucket=LANDING, Key=KEY, VersionId=str(message.version_id))
    for read in (store.head, partial(store.download, path=tmp_path / "file")):
        with pytest.raises(ObjectGone):
            read(LANDING, KEY, version_id=message.version_id)


def test_an_archived_object_is_not_reported_as_a_missing_permission(store: ObjectStore, tmp_path: Path) -> None:
    written = boto3.client("s3").put_object(Bucket=LANDING, Key=KEY, Body=b"rows", StorageClass="GLACIER")
    with pytest.raises(ObjectArchived):
        store.download(LANDING, KEY, tmp_path / "file", written["VersionId"])


def test_an_object_that_is_gone_is_not_replaced(store: ObjectStore) -> None:
    assert not store.put_if_unchanged("index/orders/a.json", "{}", StoredObject(b"", '"an etag"'))


def test_an_invalid_bucket_name_is_an_invalid_call(store: ObjectStore) -> None:
    with pytest.raises(AwsCallInvalid):
        store.head("not a bucket", KEY)


def test_a_large_output_that_exists_already_is_not_uploaded_again(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_TRANSFER", TransferConfig(multipart_threshold=1))
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"rows")
    store.upload("data/orders/x.parquet", file, sha256="aa")
    before = boto3.client("s3").head_object(Bucket=PUBLISHED, Key="data/orders/x.parquet")["LastModified"]
    file.write_bytes(b"would be seen")
    store.upload("data/orders/x.parquet", file, sha256="aa")
    after = boto3.client("s3").get_object(Bucket=PUBLISHED, Key="data/orders/x.parquet")
    assert after["Body"].read() == b"rows"
    assert after["LastModified"] == before


def test_an_upload_that_s3_denies_is_not_reported_as_unavailable(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject")  # type: ignore[typeddict-item]

    monkeypatch.setattr(store._s3, "put_object", refuse)
    file = tmp_path / "x.parquet"
    file.write_bytes(b"rows")
    with pytest.raises(AwsRefused):
        store.upload("data/orders/x.parquet", file, sha256="aa")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("SlowDown", 503, AwsUnavailable),
        ("InternalError", 500, AwsUnavailable),
        ("AccessDenied", 403, AwsRefused),
        ("ExpiredToken", 400, AwsRefused),
    ],
)
def test_an_error_of_s3_is_raised_as_the_error_for_its_cause(
    store: ObjectStore, code: str, status: int, expected: type[Exception]
) -> None:
    def refuse(**_: Any) -> Any:
        raise ClientError(
            {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
            "GetObject",
        )

    store._s3.get_object = refuse
    with pytest.raises(expected):
        store.get("receipts/abc.json")


# --- reading in ranges ------------------------------------------------------------------------------------------------


def test_an_object_that_is_too_large_is_not_downloaded_but_can_be_read_in_ranges(
    store: ObjectStore, tmp_path: Path
) -> None:
    upload = put(b"0123456789")
    facts = store.download(LANDING, KEY, tmp_path / "file", upload.version_id, at_most=9)
    assert (facts.size_bytes, facts.version_id) == (10, upload.version_id)
    assert not (tmp_path / "file").exists()
    put(b"newer, and not what is read")
    assert store.read_range(LANDING, KEY, facts, 2, 3) == b"234"


def test_a_range_of_an_object_that_was_overwritten_or_deleted_is_not_read(store: ObjectStore) -> None:
    facts = store.head(LANDING, KEY, put(b"0123456789").version_id)
    for changed in (replace(facts, version_id=None, etag="0" * 32), replace(facts, version_id="0" * 32)):
        with pytest.raises((ObjectGone, AwsCallInvalid)):
            store.read_range(LANDING, KEY, changed, 0, 1)


def test_a_range_whose_body_breaks_off_is_read_again(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, client = store.head(LANDING, KEY, put(b"0123456789").version_id), store._s3
    broken = [True]

    class BreaksOffOnce:
        def get_object(self, **given: Any) -> Any:
            answer = client.get_object(**given)
            if broken.pop() if broken else False:
                answer["Body"] = StreamingBody(BytesIO(b"01"), 10)
            return answer

    again = ObjectStore(LANDING, PUBLISHED, client=BreaksOffOnce())
    assert again.read_range(LANDING, KEY, facts, 0, 10) == b"0123456789"
    assert not broken


# --- multipart uploads that are completed later -----------------------------------------------------------------------

EARLY = "data/orders/early.parquet"


def test_a_multipart_upload_becomes_an_object_when_it_is_completed(store: ObjectStore, tmp_path: Path) -> None:
    part_bytes = 5 * 1024**2
    (file := tmp_path / "early.parquet").write_bytes(b"a" * part_bytes + b"b")
    pending = store.create_upload(EARLY, sha256="aa")
    etags = tuple(store.upload_part(pending, number, file, part_bytes) for number in (1, 2))
    pending = replace(pending, etags=etags)
    assert not store.exists(EARLY)
    store.complete_upload(pending)
    found = store.get(EARLY)
    assert found is not None
    assert (found.body == file.read_bytes(), found.metadata["sha256"]) == (True, "aa")
    store.complete_upload(pending)  # as if the first response had been lost


def test_a_part_of_a_file_is_sent_without_reading_it_into_memory(tmp_path: Path) -> None:
    class Discards:
        def upload_part(self, *, Body: BinaryIO, **_: Any) -> dict[str, str]:  # noqa: N803
            while Body.read(1 << 16):
                pass
            return {"ETag": "e"}

    (file := tmp_path / "early.parquet").write_bytes(bytes(9 << 20))
    store = ObjectStore(LANDING, PUBLISHED, client=Discards())
    tracemalloc.start()
    try:
        store.upload_part(PendingUpload(EARLY, "upload", "aa"), 1, file, 8 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_completing_an_aborted_multipart_upload_is_a_transient_error() -> None:
    in_memory = ObjectStore(LANDING, PUBLISHED, client=InMemoryS3())  # moto fails in this case
    pending = in_memory.create_upload(EARLY, sha256="aa")
    in_memory.abort_upload(pending)
    with pytest.raises(AwsUnavailable):
        in_memory.complete_upload(pending)
    assert not in_memory.exists(EARLY)
