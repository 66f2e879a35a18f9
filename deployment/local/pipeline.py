"""Brings the pipeline up in a running local cloud: the stack, the blocks, the work pool, the deployments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from deployment.change_sets import StackEvent
from deployment.local.cloud import LocalCloud
from deployment.local.services import PROJECT_ROOT
from deployment.packaging import Timeouts
from deployment.stack import Clients, deploy_stack
from deployment.target import pipeline_settings

STACK_NAME = "sluice"
WORK_POOL = "local"
IMAGE = "sluice:local"  # a name only, unless a real Docker engine runs the tasks


def bring_up(
    cloud: LocalCloud,
    *,
    parameters: Mapping[str, str] | None = None,
    timeouts: Timeouts = Timeouts(),
    on_step: Callable[[str], None] = lambda _: None,
    on_event: Callable[[StackEvent], None] = lambda _: None,
) -> dict[str, str]:
    """Deploy everything into `cloud`, or bring it up to date, and return the stack's outputs.

    Args:
        parameters: the template's, besides the image and Prefect's address.
        timeouts: of the state machine and its task.
        on_step: told, in a few words, what is being done.
        on_event: told every step of the stack's deployment.

    Raises:
        StackError: the stack could not be deployed.
        CommandFailed: the blocks or deployments could not be registered.
    """
    on_step("deploying the stack")
    outputs = deploy_stack(
        Clients(cloud.client("cloudformation"), cloud.client("s3"), cloud.client("sts")),
        stack_name=STACK_NAME,
        parameters={"ImageUri": IMAGE, "PrefectApiUrl": cloud.prefect_api_url, **(parameters or {})},
        timeouts=timeouts,
        on_event=on_event,
    )
    cloud.save_outputs(outputs)
    on_step("registering the blocks and the deployments")
    _register(cloud, settings_of(outputs))
    return outputs


def _register(cloud: LocalCloud, environment: Mapping[str, str]) -> None:
    """Let Prefect know the blocks, the work pool and the deployments; programs that mostly start up, side by side."""
    settings = dict(environment)
    with cloud.begin(["python", "-m", "blocks.register"], environment=settings) as blocks:
        cloud.run(
            ["prefect", "--no-prompt", "work-pool", "create", WORK_POOL, "--type", "process", "--overwrite"],
            timeout_seconds=60,
        )
        cloud.run(["prefect", "--no-prompt", "deploy", "--all"], timeout_seconds=120, environment=settings)
        blocks.finish(120)  # the automations name blocks
        cloud.run(["python", "-m", "deployment.automations"], timeout_seconds=60)


def settings_of(outputs: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that configures the pipeline for a process outside of the stack, such as a worker."""
    return {
        **pipeline_settings(outputs),
        "SLUICE_CODE_DIRECTORY": str(PROJECT_ROOT),
        "SLUICE_WORK_POOL": WORK_POOL,
        "PREFECT_WORKER_QUERY_SECONDS": "2",  # a person at the UI waits for the run to start; the default is 15
    }
