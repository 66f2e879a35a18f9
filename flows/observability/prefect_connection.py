"""Tracks whether Prefect's API can currently be used, and explains its errors."""

import logging
import time
from http import HTTPStatus

import httpx
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

LOG = logging.getLogger("sluice")
PATIENCE_SECONDS = 5.0
"""How long Prefect's client waits before it retries a request to a busy server."""

SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 60.0
"""The first and the longest pause in which a task sends no requests to a Prefect server that has failed."""

SLOW_SECONDS = 3.0
"""A server that takes this long to respond counts as overloaded, because waiting for it would delay the data."""

_PROBE_SECONDS = 2
_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)


class Connection:
    """Remembers whether Prefect is down or slow, because each attempt to reach it would then delay the data.

    After a pause, one short request checks whether Prefect is back. The pause doubles with each consecutive failure, up
    to LONGEST_PAUSE_SECONDS, and starts again from SHORTEST_PAUSE_SECONDS after a successful request.
    """

    def __init__(self) -> None:
        self._closed_until = 0.0 if PREFECT_API_URL.value() else float("inf")
        self._pause_seconds = SHORTEST_PAUSE_SECONDS

    def is_open(self) -> bool:
        if not self._closed_until:
            return True
        if time.monotonic() < self._closed_until:
            return False
        if not _answers(f"{PREFECT_API_URL.value()}/ready"):
            self.close("it does not respond, or not fast enough")
            return False
        self._closed_until = 0.0
        return True

    def close(self, why: str) -> None:
        """Stop using Prefect until the pause is over; `why` is logged."""
        LOG.warning("continuing without Prefect", extra={"fields": {"why": why, "seconds": self._pause_seconds}})
        self._closed_until = time.monotonic() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def succeeded(self, seconds: float) -> None:
        """Record that Prefect responded to a request after `seconds`. Pause requests if that was slow."""
        if seconds >= SLOW_SECONDS:
            self.close(f"a request took {seconds:.1f} s")
        else:
            self._pause_seconds = SHORTEST_PAUSE_SECONDS


def is_refusal(error: Exception) -> bool:
    """Return whether Prefect works but rejected this request, for example because the run has been deleted."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _REFUSALS
    return isinstance(error, (ObjectNotFound, ObjectAlreadyExists))


def shorten_patience(response: httpx.Response) -> None:
    """Replace a response's Retry-After header, which Prefect's client would obey, with PATIENCE_SECONDS. Remove the
    header that makes the client retry forever during maintenance."""
    response.headers.pop("Prefect-Maintenance", None)
    if "Retry-After" in response.headers:
        response.headers["Retry-After"] = str(PATIENCE_SECONDS)


def why(error: Exception) -> str:
    """Return a string for the log that states what is wrong with Prefect, and contains no secrets."""
    if not isinstance(error, httpx.HTTPStatusError):
        return type(error).__name__
    status = error.response.status_code
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"its API rejects this client ({status}): PREFECT_API_AUTH_STRING or PREFECT_API_KEY is missing or wrong"
    return f"its API responds with status {status}"


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_PROBE_SECONDS).status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    except httpx.HTTPError:
        return False
