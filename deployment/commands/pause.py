"""`sluice pause` and `sluice resume`: stop and restart processing, while new uploads queue up."""

from rich.console import Console

from blocks.pause import Pause
from deployment.deployed_stack import DeployedStack, drains_of


def pause(console: Console, cloud: DeployedStack) -> None:
    """Pause the stack: no upload starts a drain, and running tasks end after the uploads that they are processing."""
    _pause_of(cloud).begin()
    console.print(
        "Paused: new uploads wait in the queue, for at most ten days, and running tasks finish those that they are "
        "processing. To resume: sluice resume",
        style="yellow",
    )


def resume(console: Console, cloud: DeployedStack) -> None:
    """End the pause and start a drain. If the stack was not paused, this starts an additional drain, which is
    harmless."""
    _pause_of(cloud).end()
    drains_of(cloud).start()  # only now, because a task that is started during a pause ends immediately
    console.print("Resumed, and a drain was started. To see the progress: sluice status", style="green")


def _pause_of(cloud: DeployedStack) -> Pause:
    return Pause(cloud.outputs["PublishedBucket"], cloud.client("s3"))
