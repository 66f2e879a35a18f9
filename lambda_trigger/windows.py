"""Names of the executions that drain the queue. Uploads in the same time window use the same name, so that only one
execution is started."""

BACKLOG_SECONDS = 30  # one drain per half minute, no matter how many tasks request more tasks


def window_of(now: float, window_seconds: int) -> int:
    """Return the number of the window that contains `now` (seconds since 1970)."""
    return int(now // window_seconds)


def upload_drain(window: int) -> str:
    """Return the name of the execution that drains the uploads of a window."""
    return f"upload-{window}"


def backlog_drain(now: float) -> str:
    """Return the name of the execution that launches more tasks, if many messages are waiting, in the half minute that
    contains `now` (seconds since 1970)."""
    return f"backlog-{window_of(now, BACKLOG_SECONDS)}"
