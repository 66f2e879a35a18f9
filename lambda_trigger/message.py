"""The queue message of an upload, the ID of its run, and the folder that the file was uploaded to."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import MISSING, asdict, dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, get_type_hints

MESSAGE_SCHEMA_VERSION = 1


class MessageUnreadable(ValueError):
    """A queue message is not an UploadMessage: it is not JSON, its schema is unknown, or a field is missing or
    invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadMessage:
    """The content of a queue message: one object version to process."""

    bucket: str  # the landing bucket
    key: str  # the object's key, decoded (in S3 events, it is URL-encoded)
    version_id: str | None  # the object version; None on a bucket without versioning
    etag: str  # the object's ETag without quotes
    size_bytes: int  # the object's size
    # orders the events of one key (S3's hexadecimal string); None if the trigger was not an S3 event
    sequencer: str | None = None
    event_time: str | None = None  # when S3 received the upload, ISO 8601, UTC; None if that is unknown
    attempt: int = 0  # 0 for the upload itself; each forced re-run or repair of the same version adds 1

    @property
    def run_id(self) -> str:
        """Return the ID of the run, which is the same for every delivery of the same object version."""
        return run_id_of(self.bucket, self.key, self.version_id, self.etag, self.sequencer)

    def to_json(self) -> str:
        """Return the message as JSON with sorted keys, so that the same upload always gives the same string."""
        return json.dumps({"schema": MESSAGE_SCHEMA_VERSION, **asdict(self)}, sort_keys=True, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> UploadMessage:
        """Read a message from JSON. Raise MessageUnreadable, which states what is wrong, if it is not an upload
        message."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MessageUnreadable(f"the message is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise MessageUnreadable(f"the message is a JSON {type(fields).__name__}, not an object")
        schema = fields.pop("schema", None)
        if schema != MESSAGE_SCHEMA_VERSION:
            raise MessageUnreadable(
                f"the message has schema {schema!r}; this release reads schema {MESSAGE_SCHEMA_VERSION}"
            )
        _check_fields(fields)
        return cls(**fields)


def _check_fields(fields: dict[str, Any]) -> None:
    """Raise MessageUnreadable unless `fields` has the fields of UploadMessage, with the correct types."""
    types = get_type_hints(UploadMessage)
    unknown = sorted(set(fields) - set(types))
    missing = sorted(
        {field.name for field in dataclass_fields(UploadMessage) if field.default is MISSING} - set(fields)
    )
    if unknown or missing:
        raise MessageUnreadable(f"the message has unknown fields {unknown} and lacks {missing}")
    for name, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, types[name]):
            expected = UploadMessage.__annotations__[name]
            raise MessageUnreadable(f"field {name!r} is {type(value).__name__}, not {expected}")
    if fields["size_bytes"] < 0 or fields.get("attempt", 0) < 0:
        raise MessageUnreadable("size_bytes and attempt cannot be negative")


def run_id_of(bucket: str, key: str, version_id: str | None, etag: str, sequencer: str | None) -> str:
    """Return the run ID of an object version: 32 hexadecimal characters.

    A version ID identifies a version of a key. In a bucket without versioning, the ETag and the event's sequencer
    identify the version. With the ETag alone, a re-upload of the same bytes would count as the same upload.
    """
    identity = [bucket, key, version_id] if version_id else [bucket, key, etag, sequencer or ""]
    # JSON separates the parts, because ("a", "b/c") and ("a/b", "c") must give different IDs.
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def slug(text: str) -> str:
    """Return `text` in lower case, with each sequence of characters outside `[a-z0-9_]` replaced by one hyphen, and no
    hyphen at either end."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def folder_of(key: str, incoming_prefix: str) -> str:
    """Return the slug of the first folder in `key` after `incoming_prefix`, at most 64 characters long, or "" if the
    file is in no folder."""
    below = key.removeprefix(incoming_prefix)
    folder, separator, _ = below.partition("/")
    return slug(folder)[:64].strip("-") if separator else ""
