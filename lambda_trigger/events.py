"""Turns the records of an S3 event into upload messages. A record that is not an upload is ignored, with a reason.

AWS documents the event's format at docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from lambda_trigger.ignored_names import IGNORED_NAMES, is_ignored
from lambda_trigger.message import UploadMessage

MAX_KEY_BYTES = 1024  # S3's own limit


class EventUnreadable(ValueError):
    """The invocation's payload is not an S3 event, because it is not a JSON object or has no list of Records."""


class RecordUnreadable(ValueError):
    """A record of an S3 event lacks a field, or a field has an invalid value."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A record that is not an upload. `reason` is a code for the log, and `what` is the object's key or the event's
    name."""

    reason: str
    what: str


def records_of_event(event: object) -> list[Any]:
    """Return the records of an S3 event, or an empty list for S3's test event. Raise EventUnreadable if `event` is not
    an S3 event."""
    if not isinstance(event, dict):
        raise EventUnreadable(f"the payload is {type(event).__name__}, not a JSON object")
    if event.get("Event") == "s3:TestEvent":
        return []
    records = event.get("Records")
    if not isinstance(records, list):
        raise EventUnreadable(f"the payload has no list of Records; its fields are {sorted(map(str, event))}")
    return records


def read_record(
    record: object, *, bucket: str, incoming_prefix: str, ignored_names: str = IGNORED_NAMES
) -> UploadMessage | Ignored:
    """Return the upload that a record describes, or the reason why the record is ignored.

    Args:
        bucket: the landing bucket; records of other buckets are ignored.
        incoming_prefix: the prefix of uploads, ending in "/".
        ignored_names: patterns for the names of files that are not data (ignored_names.py).

    Raises:
        RecordUnreadable: a field is missing or invalid; the message names it.
    """
    event_name = str(_field(record, "eventName"))
    key = unquote_plus(str(_field(record, "s3", "object", "key")))
    ignored = _reason_to_ignore(record, event_name, key, bucket, incoming_prefix)
    if ignored is None and is_ignored(key, incoming_prefix, ignored_names):
        ignored = "not_data"
    if ignored:
        return Ignored(ignored, key or event_name)
    return _message(record, bucket, key)


def _reason_to_ignore(record: object, event_name: str, key: str, bucket: str, prefix: str) -> str | None:
    if not event_name.removeprefix("s3:").startswith("ObjectCreated:"):
        return "not_an_upload"
    if _field(record, "s3", "bucket", "name") != bucket:
        return "other_bucket"
    if not key.startswith(prefix):
        return "other_prefix"
    if key.endswith("/") and _field(record, "s3", "object", "size") == 0:  # an object with content is a file
        return "folder_marker"
    return None


def _message(record: object, bucket: str, key: str) -> UploadMessage:
    if len(key.encode()) > MAX_KEY_BYTES:
        raise RecordUnreadable(f"s3.object.key is longer than {MAX_KEY_BYTES} bytes")
    size = _field(record, "s3", "object", "size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise RecordUnreadable("s3.object.size is not a number of bytes")
    version_id = _optional(record, "s3", "object", "versionId")
    return UploadMessage(
        bucket=bucket,
        key=key,
        # On a bucket with suspended versioning the ID is "null", which identifies nothing.
        version_id=None if version_id == "null" else version_id,
        etag=str(_field(record, "s3", "object", "eTag")),
        size_bytes=size,
        sequencer=_optional(record, "s3", "object", "sequencer"),
        event_time=_optional(record, "eventTime"),
    )


def _field(record: object, *path: str) -> object:
    value: object = record
    for name in path:
        if not isinstance(value, dict) or name not in value:
            raise RecordUnreadable(f"the record has no {'.'.join(path)}")
        value = value[name]
    return value


def _optional(record: object, *path: str) -> str | None:
    try:
        value = _field(record, *path)
    except RecordUnreadable:
        return None
    return str(value) if value else None
