"""Outcomes as Prefect events, which automations match: `sluice.upload.published`, `rejected`, `failed`, and `retrying`.

The resource is the upload, with the stack and the dataset as labels; the dataset is a related resource, too.
"""

from __future__ import annotations

from contextvars import Context, copy_context
from dataclasses import asdict
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.context import FlowRunContext
from prefect.events import Event, RelatedResource, Resource, emit_event

from flows.observability.run_identity import idempotency_key, run_name
from flows.pipeline.announce import OutcomeNotice

RETRYING = "retrying"
"""The event of a try that failed, of an upload that stays in the queue."""


def outcome_event(
    notice: OutcomeNotice, stack: str, flow_run_id: UUID | str | None, *, what: str | None = None, at: str = ""
) -> Event:
    """Return the event of one outcome. The same outcome always has the same id.

    Args:
        flow_run_id: the flow run that shows the upload.
        what: the last part of the event's name, where that is not the outcome's status.
        at: distinguishes events of one attempt at the upload that have the same name.
    """
    name = f"sluice.upload.{what or notice.status}"
    identity = f"{stack}/{idempotency_key(notice.run_id, notice.attempt)}/{name}/{at}"
    return Event(
        id=uuid5(NAMESPACE_URL, f"sluice:{identity}"),
        event=name,
        resource=Resource(
            {
                "prefect.resource.id": f"sluice.upload.{notice.run_id}",
                "prefect.resource.name": run_name(notice.key, notice.run_id),
                "sluice.stack": stack,
                "sluice.dataset": notice.dataset,
                "sluice.reason": notice.error.message if notice.error else "",
            }
        ),
        related=[RelatedResource(one) for one in _related(notice, flow_run_id)],
        payload={"stack": stack, **asdict(notice)},
    )


def emit_outcome(event: Event) -> None:
    """Send an event in the background, on the connection on which Prefect sends those of tasks."""

    # Inside a flow run, Prefect would ask its API for everything that is related to the run: four requests.
    settings = [(name, value) for name, value in copy_context().items() if name is not FlowRunContext.__var__]

    def emit() -> None:
        for name, value in settings:
            name.set(value)
        emit_event(
            event.event,
            resource=event.resource.model_dump(),
            related=[one.model_dump() for one in event.related],
            payload=event.payload,
            id=event.id,
        )

    Context().run(emit)


def _related(notice: OutcomeNotice, flow_run_id: UUID | str | None) -> list[dict[str, str]]:
    dataset = {
        "prefect.resource.id": f"sluice.dataset.{notice.dataset}",
        "prefect.resource.name": notice.dataset,
        "prefect.resource.role": "dataset",
    }
    if flow_run_id is None:
        return [dataset]
    return [dataset, {"prefect.resource.id": f"prefect.flow-run.{flow_run_id}", "prefect.resource.role": "flow-run"}]
