"""The two buckets: read an object version, write outputs, commit a receipt once, keep the index."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from boto3.exceptions import RetriesExceededError, S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError
from prefect.blocks.core import Block
from pydantic import Field, HttpUrl

from blocks.aws import LOGO_URL, client_of
from blocks.aws_errors import AwsUnavailable, aws_error_code, explain_aws_error, http_status
from flows.pipeline.protocol import (
    IndexEntry,
    decide_after_refused_commit,
    index_key,
    leftovers,
    settle,
    untold,
    withdraw,
)
from flows.pipeline.receipt import Receipt, receipt_key
from flows.refinery.errors import FileRejected, SluiceError, TransientError
from lambda_trigger.message import UploadMessage, run_id_of

_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound", "MethodNotAllowed", "405"})
_OVERWRITTEN = (
    "the file was overwritten before it was read; the newer upload is processed as a run of its own. "
    "With versioning on the landing bucket every upload is kept"
)
_COMMIT_ATTEMPTS = 8
_SETTLE_ATTEMPTS = 8
_TRANSFER = TransferConfig(multipart_chunksize=16 * 1024**2, max_concurrency=8)
_STREAM_CHUNK_BYTES = 1024**2


class ObjectGone(FileRejected):
    """The object version was deleted before it could be read."""

    code = "object_gone"


class ObjectReplaced(FileRejected):
    """On a bucket without versioning, the object was overwritten before it could be read."""

    code = "object_replaced"


class ObjectArchived(TransientError):
    """The object lies in an archive (S3 Glacier) and must be restored before it can be read.

    The upload goes back to the queue; after the queue's limit it rests in the dead-letter queue, from which it is
    redriven once the object is restored.
    """


class ObjectTooLarge(FileRejected):
    """The object is larger than the pipeline's limit."""

    code = "object_too_large"


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What S3 says about one object version."""

    version_id: str | None
    etag: str
    size_bytes: int
    last_modified: str


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One object version as S3 lists it.

    Attributes:
        version_id: None for an object that was written while the bucket had no versioning.
    """

    key: str
    version_id: str | None
    etag: str
    size_bytes: int
    last_modified: datetime


class ObjectStore(Block):
    """The landing bucket, which is only read, and the published bucket with data, quarantine and receipts."""

    _block_type_name = "Sluice object store"
    _block_type_slug = "sluice-object-store"
    _description = "The landing bucket, which is only read, and the published bucket with data and receipts."
    _logo_url = LOGO_URL
    _documentation_url = HttpUrl("https://docs.aws.amazon.com/AmazonS3/latest/userguide/Versioning.html")

    landing_bucket: str = Field(description="The bucket that files are dropped into.")
    published_bucket: str = Field(description="The bucket that results and receipts are written to.")
    max_object_bytes: int = Field(10 * 1024**3, ge=1, description="A larger upload is rejected.")

    @cached_property
    def _s3(self) -> Any:
        return client_of("s3")

    # --- the landing bucket -----------------------------------------------------------------------------------

    def facts(self, bucket: str, key: str, version_id: str | None = None) -> ObjectFacts:
        """Ask S3 about an object version; the newest one when `version_id` is None.

        Raises:
            ObjectGone: there is no such object version.
        """
        version = {"VersionId": version_id} if version_id else {}
        try:
            head = self._s3.head_object(Bucket=bucket, Key=key, **version)
        except (BotoCoreError, ClientError) as error:
            raise self._read_error(error, bucket, key, version_id) from error
        return ObjectFacts(
            version_id=None if head.get("VersionId") in (None, "null") else head["VersionId"],
            etag=head["ETag"].strip('"'),
            size_bytes=head["ContentLength"],
            last_modified=_iso(head["LastModified"]),
        )

    def fetch(self, upload: UploadMessage, path: Path) -> ObjectFacts:
        """Download an object version to `path`: in ranged parts, or as one stream from a server that ignores ranges.

        Raises:
            ObjectGone, ObjectReplaced, ObjectTooLarge: the file cannot be processed.
        """
        facts = self.facts(upload.bucket, upload.key, upload.version_id)
        if facts.size_bytes > self.max_object_bytes:
            raise ObjectTooLarge(
                f"the file has {facts.size_bytes:,} bytes; the limit is {self.max_object_bytes:,} "
                "(SLUICE_MAX_OBJECT_BYTES)"
            )
        if upload.version_id is None and upload.etag and facts.etag != upload.etag:
            raise ObjectReplaced(_OVERWRITTEN)
        try:
            self._download(upload, path, facts.size_bytes)
        except (BotoCoreError, ClientError) as error:
            raise self._read_error(error, upload.bucket, upload.key, upload.version_id) from error
        except RetriesExceededError as error:
            # boto3's own class for a body that broke off every time; it is no BotoCoreError.
            raise AwsUnavailable(f"reading s3://{upload.bucket}/{upload.key}: the body broke off every time") from error
        with suppress(ObjectGone):  # deleted since: what was read is all that there is
            if not upload.version_id and self.facts(upload.bucket, upload.key).etag != facts.etag:
                raise ObjectReplaced(_OVERWRITTEN)
        if path.stat().st_size != facts.size_bytes:
            raise AwsUnavailable(
                f"reading s3://{upload.bucket}/{upload.key}: {path.stat().st_size:,} of {facts.size_bytes:,} bytes came"
            )
        return facts

    def _download(self, upload: UploadMessage, path: Path, size_bytes: int) -> None:
        version = {"VersionId": upload.version_id} if upload.version_id else {}
        if size_bytes > _TRANSFER.multipart_chunksize:
            # Where a server ignores ranges, boto3 writes the whole object at the offset of every part.
            answer = self._s3.get_object(Bucket=upload.bucket, Key=upload.key, Range="bytes=0-0", **version)
            with closing(answer["Body"]) as body:
                if "ContentRange" not in answer:
                    with path.open("wb") as file:
                        shutil.copyfileobj(body, file, _STREAM_CHUNK_BYTES)
                    return
        self._s3.download_file(upload.bucket, upload.key, str(path), ExtraArgs=version, Config=_TRANSFER)

    def versions(self, prefix: str, *, page_size: int = 1000) -> Iterator[list[ObjectVersion]]:
        """Yield every object version of the landing bucket under `prefix`, in pages sorted by key, the newest version
        of a key first; no deletions."""
        yield from self._versions(self.landing_bucket, prefix, page_size)

    def order_of(self, run_ids: frozenset[str], receipt: Receipt) -> tuple[str, ...]:
        """Return those of some runs of a receipt's key whose versions are still there, that of the newest one first.

        S3 lists the versions of a key in the order in which they were stored, the most recent one first
        (docs.aws.amazon.com/AmazonS3/latest/userguide/list-obj-version-enabled-bucket.html).
        """
        bucket, key = receipt.source.bucket, receipt.source.key
        found: list[str] = []
        for page in self._versions(bucket, key) if run_ids else ():
            for version in page:
                run_id = run_id_of(bucket, key, version.version_id, version.etag, None)
                if version.key == key and run_id in run_ids:
                    found.append(run_id)
            if len(found) == len(run_ids) or (page and page[-1].key != key):
                break
        return tuple(found)

    def _versions(self, bucket: str, prefix: str, page_size: int = 1000) -> Iterator[list[ObjectVersion]]:
        pages = self._s3.get_paginator("list_object_versions").paginate(
            Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": page_size}
        )
        try:
            for page in pages:
                yield [_object_version(entry) for entry in page.get("Versions", [])]
        except (BotoCoreError, ClientError) as error:
            raise explain_aws_error(error, f"listing the versions of s3://{bucket}/{prefix}") from error

    def _read_error(
        self, error: BotoCoreError | ClientError, bucket: str, key: str, version_id: str | None
    ) -> SluiceError:
        if aws_error_code(error) in _GONE or http_status(error) in (404, 405):
            version = f" (version {version_id})" if version_id else ""
            return ObjectGone(f"s3://{bucket}/{key}{version} does not exist; it was deleted before it was read")
        if aws_error_code(error) == "InvalidObjectState":
            return ObjectArchived(f"s3://{bucket}/{key} lies in an archive; restore it, and process the upload again")
        return explain_aws_error(error, f"reading s3://{bucket}/{key}")

    # --- outputs ----------------------------------------------------------------------------------------------

    def put_file(self, key: str, path: Path, *, sha256: str) -> None:
        """Upload an output under the key of its run and content; one that lies there already is left alone."""
        try:
            if self._digest_at(key) == sha256:
                return
            self._s3.upload_file(
                str(path),
                self.published_bucket,
                key,
                ExtraArgs={"Metadata": {"sha256": sha256}},
                Config=_TRANSFER,
            )
        except (BotoCoreError, ClientError) as error:
            raise explain_aws_error(error, f"writing s3://{self.published_bucket}/{key}") from error
        except S3UploadFailedError as error:
            answer = error.__context__  # boto3 wraps what S3 answered, and tells it in its own text only
            if isinstance(answer, ClientError):
                raise explain_aws_error(answer, f"writing s3://{self.published_bucket}/{key}") from error
            raise AwsUnavailable(f"writing s3://{self.published_bucket}/{key}: {type(error).__name__}") from error
        except Exception as error:
            # Whatever it was, nothing is committed yet.
            raise AwsUnavailable(f"writing s3://{self.published_bucket}/{key}: {type(error).__name__}") from error

    def fetch_output(self, key: str, path: Path) -> None:
        """Download what lies under a key of the published bucket."""
        try:
            self._s3.download_file(self.published_bucket, key, str(path), Config=_TRANSFER)
        except (BotoCoreError, ClientError) as error:
            raise explain_aws_error(error, f"reading s3://{self.published_bucket}/{key}") from error

    def _digest_at(self, key: str) -> str | None:
        try:
            head = self._s3.head_object(Bucket=self.published_bucket, Key=key)
        except ClientError as error:
            if http_status(error) == 404:
                return None
            raise
        digest: str | None = head.get("Metadata", {}).get("sha256")
        return digest

    # --- receipts ---------------------------------------------------------------------------------------------

    def receipt(self, run_id: str) -> Receipt | None:
        """Return the receipt of a run, or None when there is none yet."""
        found = self._stored(receipt_key(run_id))
        return Receipt.from_json(found[0]) if found else None

    def has_receipt(self, run_id: str) -> bool:
        """Whether a run has a receipt, of whatever schema."""
        key = receipt_key(run_id)
        try:
            self._s3.head_object(Bucket=self.published_bucket, Key=key)
        except (BotoCoreError, ClientError) as error:
            if http_status(error) == 404:
                return False
            raise explain_aws_error(error, f"looking for s3://{self.published_bucket}/{key}") from error
        return True

    def commit(self, receipt: Receipt) -> Receipt:
        """Make the receipt durable, once, and return the one that stands.

        A first attempt is written only where no receipt lies; a forced re-run replaces the receipt of an earlier
        attempt, the one that it saw. Our own write after a lost response is success.

        Raises:
            ReceiptConflict: a different result for the same attempt was committed first.
        """
        key = receipt_key(receipt.run_id)
        for _ in range(_COMMIT_ATTEMPTS):
            found = self._stored(key) if receipt.attempt > 0 else None
            before = Receipt.from_json(found[0]) if found else None
            if before and before.attempt >= receipt.attempt:
                return decide_after_refused_commit(receipt, before)
            condition = {"IfMatch": found[1]} if found else {"IfNoneMatch": "*"}
            if self._put_if(key, receipt.to_json(), receipt.metadata(), condition):
                return receipt
            standing = self.receipt(receipt.run_id)
            if standing is None:
                raise AwsUnavailable(f"receipt {receipt.run_id} was refused, and is not there; trying again")
            if standing.attempt >= receipt.attempt:
                return decide_after_refused_commit(receipt, standing)
            # An earlier attempt was committed in between; this one replaces that as well.
        raise AwsUnavailable(f"receipt {receipt.run_id} kept changing; trying again")

    # --- the index --------------------------------------------------------------------------------------------

    def settle(self, receipt: Receipt, *, replaces: Callable[[str], bool], datasets: Iterable[str] = ()) -> IndexEntry:
        """Bring the source key's index entry up to date and delete the outputs that this retires.

        Safe to repeat: done again for a receipt that was settled already, it changes nothing.

        Args:
            replaces: whether a re-upload replaces earlier outputs, by dataset.
            datasets: where a forced re-run may have to take back what an earlier attempt published, having been judged
                by another contract.
        """
        for _ in range(_SETTLE_ATTEMPTS):
            key = index_key(receipt.contract.dataset, receipt.source.bucket, receipt.source.key)
            found = self._stored(key)
            # Read after the entry: a forced re-run that commits from here on changes the entry after this worker did,
            # or makes its write fail. So no receipt that was replaced in the meantime gets into the index.
            standing = self.receipt(receipt.run_id) or receipt
            if standing.contract.dataset != receipt.contract.dataset:
                receipt = standing
                continue
            before = IndexEntry.from_json(found[0]) if found else None
            entry = settle(
                before,
                standing,
                replace=replaces(standing.contract.dataset),
                newest_first=self.order_of(untold(before, standing), standing),
            )
            condition = {"IfMatch": found[1]} if found else {"IfNoneMatch": "*"}
            if entry != before and not self._put_if(key, entry.model_dump_json(by_alias=True), {}, condition):
                continue  # another worker changed the entry in between
            entry = self._delete_retired(key, entry)
            # A re-run under another contract looks into this entry once, and that may have been before it was written.
            receipt = self.receipt(receipt.run_id) or receipt
            if receipt.contract.dataset != standing.contract.dataset:
                continue
            self._withdraw(receipt, set(datasets) - {receipt.contract.dataset})
            return entry
        raise AwsUnavailable(f"index entry {receipt.source.key} kept changing; trying again")

    def _withdraw(self, receipt: Receipt, datasets: Iterable[str]) -> None:
        """Take back what earlier attempts published in other datasets."""
        for dataset in sorted(datasets) if receipt.attempt > 0 else ():
            key = index_key(dataset, receipt.source.bucket, receipt.source.key)
            for _ in range(_SETTLE_ATTEMPTS):
                found = self._stored(key)
                if found is None:
                    break
                before = IndexEntry.from_json(found[0])
                entry = withdraw(before, receipt)
                text = entry.model_dump_json(by_alias=True)
                if entry == before or self._put_if(key, text, {}, {"IfMatch": found[1]}):
                    self._delete_retired(key, entry)
                    break
            else:
                raise AwsUnavailable(f"index entry {receipt.source.key} in {dataset} kept changing; trying again")

    def delete_leftovers(self, standing: Receipt, folders: Iterable[str]) -> None:
        """Delete what other workers wrote for the run of `standing`, without its being in that receipt.

        Args:
            folders: where to look, as "data/orders/"; the folders of the receipt's own outputs are looked at anyway.
        """
        own = {output.key.rsplit("/", 1)[0] + "/" for output in standing.outputs if output.is_retirable}
        try:
            for folder in sorted(own.union(folders)):
                listed = self._s3.list_objects_v2(Bucket=self.published_bucket, Prefix=folder + standing.run_id)
                for key in leftovers((entry["Key"] for entry in listed.get("Contents", [])), standing):
                    self._s3.delete_object(Bucket=self.published_bucket, Key=key)
        except (BotoCoreError, ClientError) as error:
            raise explain_aws_error(error, f"deleting leftovers of run {standing.run_id}") from error

    def index_entry(self, dataset: str, bucket: str, key: str) -> IndexEntry | None:
        """Return what is current for a source key; None when nothing of it has been settled yet."""
        found = self._stored(index_key(dataset, bucket, key))
        return IndexEntry.from_json(found[0]) if found else None

    def outputs(self, prefix: str, *, page_size: int = 1000) -> Iterator[list[tuple[str, datetime]]]:
        """Yield the keys of the published bucket under `prefix` and when each was written, in pages sorted by key."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.published_bucket, Prefix=prefix, PaginationConfig={"PageSize": page_size}
        )
        try:
            for page in pages:
                yield [(entry["Key"], entry["LastModified"]) for entry in page.get("Contents", [])]
        except (BotoCoreError, ClientError) as error:
            raise explain_aws_error(error, f"listing s3://{self.published_bucket}/{prefix}") from error

    def delete_output(self, key: str) -> None:
        """Delete an output that nobody needs."""
        try:
            self._s3.delete_object(Bucket=self.published_bucket, Key=key)
        except (BotoCoreError, ClientError) as error:
            raise explain_aws_error(error, f"deleting a leftover of s3://{self.published_bucket}") from error

    def _delete_retired(self, key: str, entry: IndexEntry) -> IndexEntry:
        """Delete retired outputs, then forget them. A crash in between leaves them listed, to be deleted next time."""
        if not entry.retired:
            return entry
        try:
            for retired in entry.retired:
                self._s3.delete_object(Bucket=self.published_bucket, Key=retired)
        except (BotoCoreError, ClientError) as error:
            raise explain_aws_error(error, f"deleting replaced outputs of {entry.key}") from error
        found = self._stored(key)
        if found is None:
            return entry
        stored = IndexEntry.from_json(found[0])
        cleared = stored.model_copy(update={"retired": tuple(sorted(set(stored.retired) - set(entry.retired)))})
        # Lost to another worker's write: the keys stay listed and are deleted again, which does no harm.
        self._put_if(key, cleared.model_dump_json(by_alias=True), {}, {"IfMatch": found[1]})
        return cleared

    # --- pages for people -------------------------------------------------------------------------------------

    def put_text(self, key: str, text: str, *, content_type: str) -> None:
        """Write an object that no promise depends on, whatever lay there."""
        self._put_if(key, text, {}, {}, content_type=content_type)

    def change_text(self, key: str, change: Callable[[str | None], str], *, content_type: str) -> None:
        """Replace an object's text by what `change` makes of it; begins again when another worker was faster.

        Raises:
            AwsUnavailable: others were faster every time.
        """
        for _ in range(_SETTLE_ATTEMPTS):
            found = self._stored(key)
            text = change(found[0].decode("utf-8", "replace") if found else None)
            condition = {"IfMatch": found[1]} if found else {"IfNoneMatch": "*"}
            if self._put_if(key, text, {}, condition, content_type=content_type):
                return
        raise AwsUnavailable(f"{key} kept changing")

    # --- conditional reads and writes -------------------------------------------------------------------------

    def _stored(self, key: str) -> tuple[bytes, str] | None:
        """Return an object's body and ETag, or None when it does not exist."""
        try:
            response = self._s3.get_object(Bucket=self.published_bucket, Key=key)
            return response["Body"].read(), response["ETag"]
        except ClientError as error:
            if aws_error_code(error) in _GONE:
                return None
            raise explain_aws_error(error, f"reading s3://{self.published_bucket}/{key}") from error
        except BotoCoreError as error:
            raise explain_aws_error(error, f"reading s3://{self.published_bucket}/{key}") from error

    def _put_if(
        self,
        key: str,
        text: str,
        metadata: dict[str, str],
        condition: dict[str, str],
        content_type: str = "application/json",
    ) -> bool:
        """Write `text` if `condition` holds; return whether it did.

        S3 answers 412 when it does not hold, 404 when what should be replaced is gone, and 409 when another write of
        the key is under way; after a lost response the client's own retry gets a 412 on its own write.
        """
        try:
            self._s3.put_object(
                Bucket=self.published_bucket,
                Key=key,
                Body=text.encode(),
                ContentType=content_type,
                Metadata=metadata,
                **condition,
            )
        except ClientError as error:
            if http_status(error) in (409, 412) or aws_error_code(error) in ("PreconditionFailed", "NoSuchKey"):
                return False
            raise explain_aws_error(error, f"writing s3://{self.published_bucket}/{key}") from error
        except BotoCoreError as error:
            raise explain_aws_error(error, f"writing s3://{self.published_bucket}/{key}") from error
        return True


def _object_version(entry: dict[str, Any]) -> ObjectVersion:
    return ObjectVersion(
        key=entry["Key"],
        version_id=None if entry["VersionId"] == "null" else entry["VersionId"],
        etag=entry["ETag"].strip('"'),
        size_bytes=entry["Size"],
        last_modified=entry["LastModified"],
    )


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
