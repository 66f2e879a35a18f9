"""Sends heartbeats for a live flow run, so that an automation can distinguish a long run from a dead one
(deployment/prefect_setup/automations.yaml). With each heartbeat, it also checks whether a person cancelled the run.

Prefect's setting PREFECT_FLOWS_HEARTBEAT_FREQUENCY would send the same events, but its thread delays the end of every
run by up to a second, which is longer than a small file takes, and it would have to be set in every environment.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.events import emit_event

from blocks.repeating import repeating
from flows.observability.outside_of_run import outside_of_run
from flows.observability.run_identity import stack_tag

HEARTBEAT_SECONDS = 30.0
_CANCELLED = (StateType.CANCELLING, StateType.CANCELLED)


class Heartbeat:
    """The heartbeat event of one flow run. It names the flow and the stack, so that automations can match it."""

    def __init__(self, flow_run_id: str, flow_name: str, stack: str) -> None:
        self._resource = {"prefect.resource.id": f"prefect.flow-run.{flow_run_id}"}
        self._related = [
            {"prefect.resource.role": "flow", "prefect.resource.id": "sluice.flow", "prefect.resource.name": flow_name},
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{stack_tag(stack)}"},
        ]

    def send(self) -> None:
        """Send the event in the background."""
        with suppress(Exception):  # observability never delays data
            emit_event("prefect.flow-run.heartbeat", resource=self._resource, related=self._related)


@contextmanager
def heartbeat(stack: str, on_cancelled: Callable[[], None] | None = None) -> Iterator[None]:
    """Send heartbeats for the current flow run every HEARTBEAT_SECONDS while the block runs.

    Args:
        on_cancelled: called after a heartbeat if Prefect shows that a person cancelled the run; None to skip the check.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    flow_run_id = context.flow_run.id
    beat = Heartbeat(str(flow_run_id), context.flow.name if context.flow else "", stack)

    def send() -> None:
        beat.send()
        if on_cancelled and _is_cancelled(flow_run_id):
            on_cancelled()

    with repeating(outside_of_run(send), HEARTBEAT_SECONDS, "heartbeat"):
        yield


def _is_cancelled(flow_run_id: UUID) -> bool:
    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run_id).state_type in _CANCELLED
    except Exception:  # noqa: BLE001 (if Prefect does not respond, the next heartbeat asks again)
        return False
