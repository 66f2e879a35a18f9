"""`sluice pause` and `sluice resume`: stops and starts the processing of uploads, which queue up meanwhile."""

from rich.console import Console

from blocks.pause import Pause
from deployment.deployed_stack import DeployedStack, drains_of


def pause(console: Console, cloud: DeployedStack) -> None:
    """Stop new drains. Tasks that run finish the uploads that they hold, then leave."""
    _pause_of(cloud).begin()
    console.print(
        "Paused: uploads queue up, for at most ten days, and running tasks finish the ones in hand. Start again with: "
        "sluice resume",
        style="yellow",
    )


def resume(console: Console, cloud: DeployedStack) -> None:
    """Allow drains again, and start one. Without a pause it starts one, too, which is harmless."""
    _pause_of(cloud).end()
    drains_of(cloud).start()  # afterwards: a task that sees the mark leaves
    console.print("Resumed, and a drain was started. Follow with: sluice status", style="green")


def _pause_of(cloud: DeployedStack) -> Pause:
    return Pause(cloud.outputs["PublishedBucket"], cloud.client("s3"))
