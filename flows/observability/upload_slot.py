"""Holds a slot of a dataset's concurrency limit in Prefect while one of its uploads is processed.

Only a dataset whose contract sets `max_concurrent_uploads` has a limit; for uploads of other datasets, no request is
made. The limit only reduces the load; the commit protocol protects the data. So an upload waits for a slot for a
limited time and then continues without one, and it does not wait if Prefect is down. After one unsuccessful wait, a
process still requests slots but no longer waits for them, because by default a Prefect server keeps its leases in
memory: if it restarts, the slots are never freed, and every upload would wait in vain.

Prefect's `concurrency` context manager is not used because it opens further connections, renews the lease immediately,
and sends events when a slot is taken and freed. It also waits for as long as the server decides (up to 30 s, even if a
slot is free), and raises an exception if the API is down.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from threading import Event
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
from prefect.context import FlowRunContext

from blocks.repeating import repeating

WAIT_SECONDS = 300.0
_LEASE_SECONDS = 60.0  # the shortest that Prefect grants; the slot of a killed task stays taken for this long
_RENEW_SECONDS = 20.0
_PAUSE_SECONDS = (1.0, 5.0)
_waited_in_vain = Event()


@contextmanager
def upload_slot(limit: str | None, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold a slot of a concurrency limit while the block runs, if a slot becomes free in time. This must be used in a
    flow run.

    Args:
        limit: the name of a global concurrency limit in Prefect; None if there is no limit.
        wait_seconds: how long to wait for a slot before the block runs without one.
    """
    lease = _take(limit, wait_seconds) if limit else None
    if lease is None:
        yield
        return
    try:
        with repeating(partial(_renew, lease), _RENEW_SECONDS, "upload-slot"):
            yield
    finally:
        with suppress(Exception), get_client(sync_client=True) as client:  # the lease expires by itself
            client.release_concurrency_slots_with_lease(lease)


def _take(limit: str, wait_seconds: float) -> UUID | None:
    """Take a slot and return the ID of its lease, or None if no slot became free in time or Prefect failed."""
    log = get_run_logger()
    try:
        return _wait_for_lease(limit, time.monotonic() + (0 if _waited_in_vain.is_set() else wait_seconds), log.info)
    except TimeoutError:
        _waited_in_vain.set()
        log.warning("No slot of %s became free in time; continuing without one.", limit)
    except Exception as error:  # noqa: BLE001 (observability never holds data back)
        log.warning("No slot could be requested (%s); continuing without one.", type(error).__name__)
    return None


def _wait_for_lease(limit: str, deadline: float, log: Callable[..., None]) -> UUID:
    waiting = False
    flow_run = getattr(FlowRunContext.get(), "flow_run", None)
    holder = ConcurrencyLeaseHolder(type="flow_run", id=flow_run.id) if flow_run else None
    with get_client(sync_client=True) as client:
        while True:
            try:
                answer = client.increment_concurrency_slots_with_lease(
                    names=[limit], slots=1, mode="concurrency", lease_duration=_LEASE_SECONDS, holder=holder
                )
                return ConcurrencyLimitWithLeaseResponse.model_validate(answer.json()).lease_id
            except httpx.HTTPStatusError as error:
                if error.response.status_code != HTTPStatus.LOCKED:
                    raise
                shortest, longest = _PAUSE_SECONDS
                pause = min(max(float(error.response.headers.get("Retry-After", longest)), shortest), longest)
            if time.monotonic() + pause > deadline:
                raise TimeoutError
            if not waiting:
                log("%s has no free slot; waiting for another upload to end.", limit)
                waiting = True
            time.sleep(pause)


def _renew(lease: UUID) -> None:
    # In this thread get_client creates a new client; the main thread could close a shared one.
    with suppress(Exception), get_client(sync_client=True) as client:
        client.renew_concurrency_lease(lease, _LEASE_SECONDS)
