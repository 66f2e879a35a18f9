"""Finds the local cloud that is running, or starts one for the duration of a command."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployment.local.cloud import LocalCloud
from deployment.local.endpoints import Endpoints, load_endpoints
from deployment.local.errors import LocalCloudNotRunning
from deployment.local.pipeline import bring_up
from deployment.local.state_lock import StateLock

# The template's defaults suit a busy account; these values shorten the waits for a single user.
LOCAL_PARAMETERS = {
    "MaxConcurrentTasks": "2",
    "WindowSeconds": "10",
    "SettleSeconds": "10",
}


def running_cloud(state_dir: Path) -> Endpoints:
    """Return the endpoints of the local cloud that is running with this state folder. Raise LocalCloudNotRunning if
    none is running, or if it is still starting."""
    if not StateLock(state_dir).is_taken():
        raise LocalCloudNotRunning(
            f"No local cloud is running with the state folder {state_dir}. Start one in another terminal: make up"
        )
    endpoints = load_endpoints(state_dir)
    if endpoints is None or not endpoints.ready:
        raise LocalCloudNotRunning("The local cloud is still starting; try again when it reports that it is up.")
    return endpoints


@contextmanager
def some_cloud(cloud: LocalCloud, on_step: Callable[[str], None]) -> Iterator[Endpoints]:
    """Yield the endpoints of the local cloud that is running with the same state folder. If none is running, start
    `cloud`, deploy the pipeline to it, and stop it after the block."""
    if StateLock(cloud.state_dir).is_taken():
        yield running_cloud(cloud.state_dir)
        return
    with started_cloud(cloud, on_step):
        yield cloud.endpoints


@contextmanager
def started_cloud(cloud: LocalCloud, on_step: Callable[[str], None]) -> Iterator[None]:
    """Start `cloud`, deploy the pipeline to it, and stop it after the block."""
    on_step("starting the AWS emulator and the Prefect server")
    with cloud:
        bring_up(cloud, parameters=LOCAL_PARAMETERS, on_step=on_step)
        cloud.mark_ready()
        yield
