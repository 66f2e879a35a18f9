"""The flow that records why a run crashed; an automation starts it for every crashed run
(deployment/prefect_setup/automations.yaml)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import State, StateType
from prefect.states import Completed, Crashed

from flows.composition import task_identity
from flows.observability.crashes import investigate


@flow(
    name="explain-crash",
    description="Record why a flow run crashed, and the last lines of its log.",
    flow_run_name="{flow_run_id}",
    persist_result=False,
)
def explain_crash(flow_run_id: UUID) -> State[Any]:
    """Show why a flow run crashed, in its state and in an artifact.

    Args:
        flow_run_id: The flow run that crashed.
    """
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(flow_run_id)
        client.update_flow_run(UUID(str(runtime.flow_run.id)), name=f"why {flow_run.name} crashed")
        crash = investigate(client, flow_run, task_identity().log)
        crashes = [state for state in client.read_flow_run_states(flow_run.id) if state.type is StateType.CRASHED]
        before = (crashes[-1].message if crashes else None) or ""
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
        if flow_run.state_type is not StateType.CRASHED:
            return Completed(message=f"{flow_run.name} went on: it is {flow_run.state_name} by now")
        explained: State[Any] = Crashed(message=crash.explanation(before))
        client.set_flow_run_state(flow_run.id, explained, force=True)
    return Completed(message=crash.summary)
