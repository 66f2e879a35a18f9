"""Shows whether the stack is paused: while an object exists in the published bucket, no drain is started."""

from typing import Any

PAUSE_KEY = "control/paused.json"


def is_paused(s3: Any, bucket: str) -> bool:
    """Return whether the pause's object exists. It is listed, because a missing key's 403 or 404 is ambiguous."""
    return bool(s3.list_objects_v2(Bucket=bucket, Prefix=PAUSE_KEY, MaxKeys=1).get("KeyCount"))
