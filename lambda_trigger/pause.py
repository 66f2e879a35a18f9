"""Checks whether the stack is paused: while a certain object exists in the published bucket, no drain is started."""

from typing import Any

PAUSE_KEY = "control/paused.json"


def is_paused(s3: Any, bucket: str) -> bool:
    """Return whether the object of a pause exists. It is looked for in a listing, because S3 answers a request for a
    missing object with 403 or 404, depending on permissions."""
    return bool(s3.list_objects_v2(Bucket=bucket, Prefix=PAUSE_KEY, MaxKeys=1).get("KeyCount"))
