"""S3 operations on the landing bucket and the published bucket, such as conditional puts, uploads and downloads.

This module does not interpret the objects; flows/pipeline/commit.py carries out the commit protocol.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from boto3.exceptions import RetriesExceededError, S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from s3transfer.utils import ReadFileChunk

from blocks.aws import client_of
from blocks.aws_errors import AwsUnavailable, aws_error_code, explain_aws_error, explaining_aws_errors, http_status
from flows.refinery.errors import FileRejected, SluiceError, TransientError

_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound", "MethodNotAllowed", "405"})
_TRANSFER = TransferConfig(multipart_chunksize=16 * 1024**2, max_concurrency=8)
_BROKEN_OFF = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_READS = 5  # how many times to request an object whose response body breaks off
_STREAM_CHUNK_BYTES = 1024**2
JSON = "application/json"


class ObjectGone(FileRejected):
    """The object version was deleted before it could be read, or overwritten while it was read."""


class ObjectArchived(TransientError):
    """The object is in an archive (S3 Glacier) and must be restored before it can be read.

    The upload's message returns to the queue, and moves to the dead-letter queue after the maximum number of
    deliveries. Redrive the upload once the object is restored.
    """


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """The properties of one object version, as S3 reports them."""

    version_id: str | None
    etag: str
    size_bytes: int
    last_modified: str


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One object version as S3 lists it; `version_id` is None if the bucket had no versioning when it was written."""

    key: str
    version_id: str | None
    etag: str
    size_bytes: int
    last_modified: datetime


class StoredObject(NamedTuple):
    """An object read from the published bucket, with the ETag that a conditional put compares."""

    body: bytes
    etag: str
    version_id: str | None = None
    metadata: Mapping[str, str] = {}


class ListedObject(NamedTuple):
    """An object of the published bucket as S3 lists it."""

    key: str
    last_modified: datetime
    etag: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """A file that is uploaded in parts, and that becomes visible only with `complete_upload`."""

    key: str
    upload_id: str
    sha256: str
    etags: tuple[str, ...] = ()  # the ETags of the parts, in order


class ObjectStore:
    """The landing bucket, which is only read, and the published bucket with data, quarantine and receipts. Every method
    raises AwsUnavailable, AwsRefused or AwsCallInvalid if a call to S3 fails.

    Args:
        client: a boto3 client for S3. If it is None, a client with this process's credentials is created when needed.
    """

    def __init__(self, landing_bucket: str, published_bucket: str, *, client: Any = None) -> None:
        self.landing_bucket = landing_bucket
        self.published_bucket = published_bucket
        self._client = client

    @cached_property
    def _s3(self) -> Any:
        return self._client or client_of("s3")

    # --- object versions of any bucket ------------------------------------------------------------------------

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectFacts:
        """Return what S3 reports about an object version, by default the newest. Raise ObjectGone if there is none."""
        try:
            head = self._s3.head_object(Bucket=bucket, Key=key, **_version(version_id))
        except (BotoCoreError, ClientError) as error:
            raise _read_error(error, bucket, key, version_id) from error
        return _facts(head)

    def download(
        self,
        bucket: str,
        key: str,
        path: Path,
        version_id: str | None = None,
        *,
        accept: Callable[[ObjectFacts], None] = lambda _: None,
        at_most: float = math.inf,
    ) -> ObjectFacts:
        """Download an object version to `path`, and return what S3 reports about it.

        An object of up to 16 MiB takes one request. A larger object is downloaded in ranges, or as one stream from a
        server that ignores ranges.

        Args:
            accept: called before the body is read; may raise an exception to prevent the download.
            at_most: a size in bytes. A larger object is not downloaded but can be read with `read_range`, unless the
                server does not support ranges.

        Raises:
            ObjectGone: there is no such object version.
            ObjectArchived: the object must be restored first.
        """
        try:
            for _ in range(_READS):
                answer = self._s3.get_object(Bucket=bucket, Key=key, **_version(version_id))
                facts = _facts(answer)
                with closing(answer["Body"]) as body:
                    accept(facts)
                    is_large = facts.size_bytes > min(_TRANSFER.multipart_chunksize, at_most)
                    if is_large and self._takes_ranges(bucket, key, version_id):
                        break
                    if _write(body, path, facts.size_bytes):
                        return facts
            else:
                raise AwsUnavailable(f"reading s3://{bucket}/{key}: the body broke off every time")
            if facts.size_bytes > at_most:
                return facts
            self._s3.download_file(bucket, key, str(path), ExtraArgs=_version(version_id), Config=_TRANSFER)
            return facts
        except (BotoCoreError, ClientError) as error:
            raise _read_error(error, bucket, key, version_id) from error
        except RetriesExceededError as error:
            # boto3's class for a body that broke off on every attempt; not a BotoCoreError.
            raise AwsUnavailable(f"reading s3://{bucket}/{key}: the body broke off every time") from error

    def read_range(self, bucket: str, key: str, facts: ObjectFacts, offset: int, size: int) -> bytes:
        """Return `size` bytes of an object version from `offset`. Raise ObjectGone if it was deleted or overwritten."""
        of_object = {"Bucket": bucket, "Key": key, "IfMatch": f'"{facts.etag}"', **_version(facts.version_id)}
        try:
            for _ in range(_READS):
                answer = self._s3.get_object(Range=f"bytes={offset}-{offset + size - 1}", **of_object)
                with closing(answer["Body"]) as body, suppress(*_BROKEN_OFF):
                    content: bytes = body.read()
                    if len(content) == size:
                        return content
        except (BotoCoreError, ClientError) as error:
            raise _read_error(error, bucket, key, facts.version_id) from error
        raise AwsUnavailable(f"reading s3://{bucket}/{key}: the body broke off every time")

    def _takes_ranges(self, bucket: str, key: str, version_id: str | None) -> bool:
        """Return whether the server supports range requests. If it does not, boto3 would write the whole object for
        each part."""
        answer = self._s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-0", **_version(version_id))
        with closing(answer["Body"]):
            return "ContentRange" in answer

    def versions(self, bucket: str, prefix: str, *, page_size: int = 1000) -> Iterator[list[ObjectVersion]]:
        """Yield every object version under `prefix` except delete markers, in pages sorted by key, the newest version
        of a key first.

        S3 lists the versions of a key in the order in which they were stored, the most recent one first
        (docs.aws.amazon.com/AmazonS3/latest/userguide/list-obj-version-enabled-bucket.html).
        """
        for page in self._pages("list_object_versions", bucket, prefix, page_size):
            yield [
                ObjectVersion(
                    key=entry["Key"],
                    version_id=None if entry["VersionId"] == "null" else entry["VersionId"],
                    etag=entry["ETag"].strip('"'),
                    size_bytes=entry["Size"],
                    last_modified=entry["LastModified"],
                )
                for entry in page.get("Versions", [])
            ]

    # --- the published bucket ---------------------------------------------------------------------------------

    def get(self, key: str, version_id: str | None = None) -> StoredObject | None:
        """Return an object, by default its newest version, or None if it does not exist."""
        try:
            answer = self._s3.get_object(Bucket=self.published_bucket, Key=key, **_version(version_id))
            return StoredObject(
                answer["Body"].read(), answer["ETag"], answer.get("VersionId"), answer.get("Metadata", {})
            )
        except (BotoCoreError, ClientError) as error:
            if aws_error_code(error) in _GONE:
                return None
            raise explain_aws_error(error, f"reading {self.published_address(key)}") from error

    def exists(self, key: str) -> bool:
        """Return whether an object with this key exists."""
        return self._metadata(key) is not None

    def put(self, key: str, text: str, *, content_type: str = JSON) -> None:
        """Write an object, replacing any existing object with the same key."""
        if not self._put(key, text, {}, content_type):
            raise AwsUnavailable(f"writing {self.published_address(key)}: S3 is busy with another write of this object")

    def put_if_unchanged(
        self,
        key: str,
        text: str,
        seen: StoredObject | None,
        *,
        metadata: dict[str, str] | None = None,
        content_type: str = JSON,
    ) -> bool:
        """Write an object only if the stored object is still `seen` or, if `seen` is None, if there is still no object.
        Return whether it was written.

        False does not prove that another process wrote the object: if the response to the first attempt is lost, the
        client's retry gets a 412 because of that attempt. S3 responds with 412 if the condition does not hold, with 404
        if the object to replace is gone, and with 409 if another write of the same key is in progress.
        """
        condition = {"IfMatch": seen.etag} if seen else {"IfNoneMatch": "*"}
        return self._put(key, text, metadata or {}, content_type, **condition)

    def upload(self, key: str, path: Path, *, sha256: str) -> None:
        """Upload a file, unless it is large and the stored object already has the same content according to its
        `sha256` metadata."""
        doing = f"writing {self.published_address(key)}"
        more = {"Metadata": {"sha256": sha256}}
        if path.stat().st_size <= _TRANSFER.multipart_threshold:
            with explaining_aws_errors(doing), path.open("rb") as file:
                self._s3.put_object(Bucket=self.published_bucket, Key=key, Body=file, **more)
            return
        if (self._metadata(key) or {}).get("sha256") == sha256:
            return
        try:
            self._s3.upload_file(str(path), self.published_bucket, key, ExtraArgs=more, Config=_TRANSFER)
        except Exception as error:
            # boto3 wraps S3's error in one that only quotes its code in a message.
            answer = error.__context__ if isinstance(error, S3UploadFailedError) else error
            if isinstance(answer, BotoCoreError | ClientError):
                raise explain_aws_error(answer, doing) from error
            # It is safe to try again, whatever the cause, because nothing is committed yet.
            raise AwsUnavailable(f"{doing}: {type(error).__name__}") from error

    def create_upload(self, key: str, *, sha256: str) -> PendingUpload:
        """Begin an upload in parts. If it is neither completed nor aborted, for example because the process is killed,
        the bucket's lifecycle rule deletes its parts."""
        with explaining_aws_errors(f"writing {self.published_address(key)}"):
            answer = self._s3.create_multipart_upload(
                Bucket=self.published_bucket, Key=key, Metadata={"sha256": sha256}
            )
        return PendingUpload(key, answer["UploadId"], sha256)

    def upload_part(self, pending: PendingUpload, number: int, path: Path, part_bytes: int) -> str:
        """Upload one part of a file, and return the ETag of the part. Parts are numbered from 1."""
        with (
            explaining_aws_errors(f"writing {self.published_address(pending.key)}"),
            ReadFileChunk.from_filename(str(path), (number - 1) * part_bytes, part_bytes) as body,
        ):
            answer = self._s3.upload_part(**self._of_upload(pending), PartNumber=number, Body=body)
        return str(answer["ETag"])

    def complete_upload(self, pending: PendingUpload) -> None:
        """Turn an uploaded file into an object. It is safe to repeat this, for example if the response was lost."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(pending.etags, start=1)]
        doing = f"writing {self.published_address(pending.key)}"
        try:
            self._s3.complete_multipart_upload(**self._of_upload(pending), MultipartUpload={"Parts": parts})
        except (BotoCoreError, ClientError) as error:
            if aws_error_code(error) != "NoSuchUpload":
                raise explain_aws_error(error, doing) from error
            if (self._metadata(pending.key) or {}).get("sha256") != pending.sha256:
                raise AwsUnavailable(f"{doing}: the upload was deleted before it was completed") from error

    def abort_upload(self, pending: PendingUpload) -> None:
        """Delete the parts of an upload that was not completed."""
        with explaining_aws_errors(f"deleting the upload of {self.published_address(pending.key)}"):
            self._s3.abort_multipart_upload(**self._of_upload(pending))

    def _of_upload(self, pending: PendingUpload) -> dict[str, str]:
        return {"Bucket": self.published_bucket, "Key": pending.key, "UploadId": pending.upload_id}

    def list_keys(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Yield each key under `prefix` and the time when its object was written, sorted by key."""
        for page in self.list_objects(prefix):
            yield from ((each.key, each.last_modified) for each in page)

    def list_objects(self, prefix: str, *, page_size: int = 1000) -> Iterator[list[ListedObject]]:
        """Yield the objects under `prefix`, in pages sorted by key."""
        for page in self._pages("list_objects_v2", self.published_bucket, prefix, page_size):
            yield [
                ListedObject(entry["Key"], entry["LastModified"], entry["ETag"], entry["Size"])
                for entry in page.get("Contents", [])
            ]

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Yield the folders directly under `prefix`, which must end in a slash."""
        for page in self._pages("list_objects_v2", self.published_bucket, prefix, 1000, Delimiter="/"):
            yield from (folder["Prefix"] for folder in page.get("CommonPrefixes", []))

    def kept_days(self, folder: str) -> int | None:
        """Return after how many days a lifecycle rule of the published bucket deletes objects under `folder`. Return
        None if no rule does, or if the rules cannot be read, for example without s3:GetLifecycleConfiguration."""
        with explaining_aws_errors(f"looking for the retention of {self.published_address(folder)}"):
            try:
                rules = self._s3.get_bucket_lifecycle_configuration(Bucket=self.published_bucket)["Rules"]
            except ClientError:
                return None
        days = (rule.get("Expiration", {}).get("Days") for rule in rules if _is_about(rule, folder))
        return min(filter(None, days), default=None)

    def delete(self, key: str) -> None:
        """Delete an object. Do nothing if it does not exist."""
        with explaining_aws_errors(f"deleting {self.published_address(key)}"):
            self._s3.delete_object(Bucket=self.published_bucket, Key=key)

    def delete_if_unchanged(self, key: str, seen: StoredObject) -> bool:
        """Delete an object only if the stored object is still `seen`. Return whether it was deleted."""
        return self._on_condition(self._s3.delete_object, key, IfMatch=seen.etag)

    def _metadata(self, key: str) -> dict[str, str] | None:
        """Return the user metadata of an object, or None if it does not exist."""
        try:
            return dict(self._s3.head_object(Bucket=self.published_bucket, Key=key).get("Metadata", {}))
        except (BotoCoreError, ClientError) as error:
            if http_status(error) == 404:
                return None
            raise explain_aws_error(error, f"looking for {self.published_address(key)}") from error

    def _put(self, key: str, text: str, metadata: dict[str, str], content_type: str, **condition: str) -> bool:
        more = {"Body": text.encode(), "ContentType": content_type, "Metadata": metadata}
        return self._on_condition(self._s3.put_object, key, **more, **condition)

    def _on_condition(self, call: Callable[..., Any], key: str, **more: Any) -> bool:
        try:
            call(Bucket=self.published_bucket, Key=key, **more)
        except (BotoCoreError, ClientError) as error:
            if http_status(error) in (409, 412) or aws_error_code(error) in ("PreconditionFailed", "NoSuchKey"):
                return False
            raise explain_aws_error(error, f"writing {self.published_address(key)}") from error
        return True

    def _pages(self, operation: str, bucket: str, prefix: str, page_size: int, **more: str) -> Iterator[dict[str, Any]]:
        pages = self._s3.get_paginator(operation).paginate(
            Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": page_size}, **more
        )
        with explaining_aws_errors(f"listing s3://{bucket}/{prefix}"):
            yield from pages

    def published_address(self, key: str) -> str:
        return f"s3://{self.published_bucket}/{key}"


def _is_about(rule: dict[str, Any], folder: str) -> bool:
    """Return whether a lifecycle rule is enabled and applies to every object under `folder`."""
    chosen = rule.get("Filter", {"Prefix": rule.get("Prefix", "")})
    return rule["Status"] == "Enabled" and chosen.keys() <= {"Prefix"} and folder.startswith(chosen.get("Prefix", ""))


def _facts(answer: dict[str, Any]) -> ObjectFacts:
    return ObjectFacts(
        version_id=None if answer.get("VersionId") in (None, "null") else answer["VersionId"],
        etag=answer["ETag"].strip('"'),
        size_bytes=answer["ContentLength"],
        last_modified=answer["LastModified"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )


def _write(body: Any, path: Path, size_bytes: int) -> bool:
    """Write the body of a response to a file. Return False if the body broke off."""
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(body, file, _STREAM_CHUNK_BYTES)
    except _BROKEN_OFF:
        return False
    return path.stat().st_size == size_bytes


def _version(version_id: str | None) -> dict[str, str]:
    return {"VersionId": version_id} if version_id else {}


def _read_error(error: BotoCoreError | ClientError, bucket: str, key: str, version_id: str | None) -> SluiceError:
    if aws_error_code(error) in _GONE or http_status(error) in (404, 405):
        version = f" (version {version_id})" if version_id else ""
        return ObjectGone(f"s3://{bucket}/{key}{version} does not exist; it was deleted before it was read")
    if http_status(error) == 412:
        return ObjectGone(f"s3://{bucket}/{key} was overwritten while it was read; the newer upload is another run")
    if aws_error_code(error) == "InvalidObjectState":
        return ObjectArchived(f"s3://{bucket}/{key} is archived; restore it, and process the upload again")
    return explain_aws_error(error, f"reading s3://{bucket}/{key}")
