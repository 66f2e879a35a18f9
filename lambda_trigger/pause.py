"""Checks whether the stack is paused, which is the case while the object PAUSE_KEY is in the published bucket."""

from typing import Any

PAUSE_KEY = "control/paused.json"


def is_paused(s3: Any, bucket: str) -> bool:
    """Return whether the object that pauses the stack exists. This lists the object instead of reading it, because S3
    responds with 403 or 404 to a request for a missing object, depending on permissions."""
    return bool(s3.list_objects_v2(Bucket=bucket, Prefix=PAUSE_KEY, MaxKeys=1).get("KeyCount"))
