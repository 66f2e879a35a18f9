"""Holds a slot of Prefect's global concurrency limits while an upload is worked on, so that a burst of uploads does not
overrun Prefect's API. deployment/prefect_setup/concurrency.yaml declares the limits.

The limits shape the load, they do not guard the data: the receipt protocol does that. So an upload waits for a slot
only so long, and goes on without one then, or at once when Prefect is away. A process whose patience has ended once
asks for further slots, but waits for none: slots may have been lost (a server that keeps its leases in memory, as is
its default, forgets at a restart who holds them and never takes them back), and every upload would wait in vain.

Prefect's own `concurrency` context manager opens connections of its own, renews the lease at once and sends an event
for each limit at both ends: load, where load is to be saved. It lets the server say how long to pause (up to 30 s, with
the slot free meanwhile), and raises when the API is away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from threading import Event, Thread
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
from prefect.context import FlowRunContext

ALL_UPLOADS = "sluice-uploads"
"""The limit that every upload counts towards; a dataset's own has the dataset's name behind it."""

WAIT_SECONDS = 300.0
_LEASE_SECONDS = 60.0  # the shortest that Prefect grants: so long the slot of a killed task stays taken
_RENEW_SECONDS = 20.0
_PAUSE_SECONDS = (1.0, 5.0)
_patience_ended = Event()


def limit_of(dataset: str) -> str:
    """Return the name of a dataset's own limit."""
    return f"{ALL_UPLOADS}-{dataset}"


@contextmanager
def upload_slot(dataset: str, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold a slot of the limits, as far as there are any, while the block runs; to be used in a flow run.

    Args:
        wait_seconds: go on without a slot after so long.
    """
    lease = _take([ALL_UPLOADS, limit_of(dataset)], wait_seconds)
    if lease is None:
        yield
        return
    over = Event()
    Thread(target=_renew, args=(lease, over), name="upload-slot", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with suppress(Exception), get_client(sync_client=True) as client:  # the lease ends by itself
            client.release_concurrency_slots_with_lease(lease)


def _take(names: list[str], wait_seconds: float) -> UUID | None:
    """Take a slot of every limit in `names` that exists, all or none; None when there is none to be had."""
    log = get_run_logger()
    try:
        return _wait_for_lease(names, time.monotonic() + (0 if _patience_ended.is_set() else wait_seconds), log.info)
    except TimeoutError:
        _patience_ended.set()
        log.warning("No slot of %s came free in time; going on without.", " and ".join(names))
    except Exception as error:  # noqa: BLE001 (observability never holds data back)
        log.warning("No slot could be asked for (%s); going on without.", type(error).__name__)
    return None


def _wait_for_lease(names: list[str], deadline: float, tell: Callable[..., None]) -> UUID:
    told = False
    with get_client(sync_client=True) as client:
        while True:
            try:
                answer = client.increment_concurrency_slots_with_lease(
                    names=names, slots=1, mode="concurrency", lease_duration=_LEASE_SECONDS, holder=_holder()
                )
                return ConcurrencyLimitWithLeaseResponse.model_validate(answer.json()).lease_id
            except httpx.HTTPStatusError as error:
                if error.response.status_code != HTTPStatus.LOCKED:
                    raise
                shortest, longest = _PAUSE_SECONDS
                pause = min(max(float(error.response.headers.get("Retry-After", longest)), shortest), longest)
            if time.monotonic() + pause > deadline:
                raise TimeoutError
            if not told:
                tell("As many uploads as %s allow are being worked on; waiting for one to end.", " and ".join(names))
                told = True
            time.sleep(pause)


def _holder() -> ConcurrencyLeaseHolder | None:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    return ConcurrencyLeaseHolder(type="flow_run", id=context.flow_run.id)


def _renew(lease: UUID, over: Event) -> None:
    # In a thread of its own get_client makes a client of its own: one that is shared may be closed under its user.
    while not over.wait(_RENEW_SECONDS):
        with suppress(Exception), get_client(sync_client=True) as client:
            client.renew_concurrency_lease(lease, _LEASE_SECONDS)
