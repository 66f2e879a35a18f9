"""Prefect events for the outcomes of uploads: `sluice.upload.published`, `.rejected`, `.failed` and `.attempt-failed`.

Automations match these events. An event's resource is the upload, with the stack and the dataset as labels; the dataset
is also a related resource.
"""

from dataclasses import asdict
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.events import Event, RelatedResource, Resource, emit_event

from flows.observability.outside_of_run import outside_of_run
from flows.observability.run_identity import idempotency_key, run_name
from flows.pipeline.announce import OutcomeNotice, RowCounts

ATTEMPT_FAILED = "attempt-failed"
"""The last part of the event's name if a live flow run failed, whether or not the upload is tried again."""


def outcome_event(
    notice: OutcomeNotice, stack: str, flow_run_id: UUID | str | None, *, what: str | None = None, at: str = ""
) -> Event:
    """Return the Prefect event for one outcome. Its ID depends only on the outcome, so sending it twice is harmless.

    Args:
        flow_run_id: the flow run that shows the upload, or None.
        what: the last part of the event's name; None to use the outcome's status.
        at: distinguishes events of the same attempt that have the same name, such as those of two failed tries.
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
                "sluice.quarantined-percent": str(_quarantined_percent(notice.rows)),
            }
        ),
        related=[RelatedResource(one) for one in _related(notice, flow_run_id)],
        payload={"stack": stack, **asdict(notice), "status": what or notice.status},
    )


def emit_outcome(event: Event) -> None:
    """Send an event in the background, over the connection that Prefect uses for the events of task runs."""
    outside_of_run(lambda: _emit(event))()


def _emit(event: Event) -> None:
    emit_event(
        event.event,
        resource=event.resource.model_dump(),
        related=[one.model_dump() for one in event.related],
        payload=event.payload,
        id=event.id,
    )


def _quarantined_percent(rows: RowCounts | None) -> int:
    """Return the percentage of rows in quarantine as a whole number, rounded down, because automations compare it as
    text."""
    return 100 * rows.quarantined // rows.rows_in if rows and rows.rows_in else 0


def _related(notice: OutcomeNotice, flow_run_id: UUID | str | None) -> list[dict[str, str]]:
    dataset = {
        "prefect.resource.id": f"sluice.dataset.{notice.dataset}",
        "prefect.resource.name": notice.dataset,
        "prefect.resource.role": "dataset",
    }
    if flow_run_id is None:
        return [dataset]
    return [dataset, {"prefect.resource.id": f"prefect.flow-run.{flow_run_id}", "prefect.resource.role": "flow-run"}]
