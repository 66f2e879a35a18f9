"""The flow that records why a flow run crashed. An automation starts it for every crashed run
(deployment/prefect_setup/automations.yaml)."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Completed, Crashed

from flows.composition import parts_of_environment, task_identity
from flows.observability.crashes import investigate
from flows.observability.recorder import Recorder
from flows.observability.run_identity import idempotency_key
from flows.pipeline.attempts import read_attempt
from flows.pipeline.commit import read_receipt
from flows.pipeline.held_uploads import read_held_uploads
from flows.refinery.errors import SluiceError


@flow(
    name="explain-crash",
    description="Record why a flow run crashed, and the last lines of its log.",
    flow_run_name="{flow_run_id}",
    persist_result=False,
)
def explain_crash(flow_run_id: UUID) -> State[Any]:
    """Show why a flow run crashed, in its state and in an artifact. If it crashed after its receipt was written, set
    its state to the receipt's outcome instead. If it is no longer crashed, leave its state unchanged.

    Args:
        flow_run_id: The flow run that crashed.
    """
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(flow_run_id)
        client.update_flow_run(UUID(str(runtime.flow_run.id)), name=f"why {flow_run.name} crashed")
        if _correct(flow_run):
            return Completed(message=f"{flow_run.name} crashed after its receipt was written; its state is corrected")
        crash = investigate(client, flow_run, task_identity().log)
        crashes = [state for state in client.read_flow_run_states(flow_run.id) if state.type is StateType.CRASHED]
        before = "\n".join([(crashes[-1].message if crashes else None) or "", *_noted(flow_run)]).strip()
        client.create_artifact(
            ArtifactCreate(
                key="crash",
                type="markdown",
                description="Why the run crashed, and its last log lines.",
                data=crash.markdown(before),
                flow_run_id=flow_run.id,
            )
        )
        for line in crash.explanation(before).splitlines():
            get_run_logger().info(line)
        if client.read_flow_run(flow_run.id).state_type is not StateType.CRASHED:
            return Completed(message=f"{flow_run.name} is no longer crashed: another task continues it")
        explained: State[Any] = Crashed(message=crash.explanation(before))
        client.set_flow_run_state(flow_run.id, explained, force=True)
    return Completed(message=crash.summary)


def _correct(flow_run: FlowRun) -> bool:
    """If a receipt exists for a crashed flow run, set its state to the receipt's outcome, which the killed process did
    not report. Return whether Prefect now shows that outcome."""
    with suppress(SluiceError):  # without S3 or settings there is still an explanation
        parts = parts_of_environment()
        receipt = read_receipt(parts.store, _run_id_of(flow_run))
        if receipt and idempotency_key(receipt.run_id, receipt.attempt) == flow_run.idempotency_key:
            return receipt.run_id in Recorder(parts).record([receipt])
    return False


def _noted(flow_run: FlowRun) -> Iterator[str]:
    """Yield sentences about a flow run's upload, taken from its batch note and its last failed attempt."""
    run_id = _run_id_of(flow_run)
    with suppress(SluiceError):
        store = parts_of_environment().store
        held = read_held_uploads(store).by_run.get(run_id)
        if held:
            doing = "was refining the upload" if held.is_refined else "held the upload's message"
            yield f"The task {held.note.task} {doing} (batch of {held.note.at})."
        attempt = read_attempt(store, run_id)
        if attempt:
            yield f"The last failed attempt, at {attempt.at}: {attempt.reason}"


def _run_id_of(flow_run: FlowRun) -> str:
    """Return the run ID of a flow run's upload. For a flow run that a person started, return "" or an ID that no upload
    has."""
    return (flow_run.idempotency_key or "").partition("-")[0]
