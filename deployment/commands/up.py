"""`sluice up`: keeps the local cloud running until Ctrl-C."""

from __future__ import annotations

import time
from contextlib import ExitStack

from rich.console import Console

from deployment.commands import visible_line
from deployment.commands.show import details_of, print_unreadable, rows_of, shown_steps
from deployment.commands.uploads import Uploads
from deployment.local.cloud import LocalCloud
from deployment.local.endpoints import Endpoints
from deployment.local.pipeline import WORK_POOL, settings_of
from deployment.local.running import started_cloud

_LOOK_SECONDS = 2.0
_NEWS_SHOWN = 20


def up(console: Console, cloud: LocalCloud) -> None:
    """Start everything and print each new receipt, until a signal arrives or a process dies.

    Raises:
        LocalCloudError: it could not be started, or one of its processes died.
    """
    with ExitStack() as running:
        with shown_steps(console) as on_step:
            running.enter_context(started_cloud(cloud, on_step))
        running.callback(console.print, "Stopping ...")
        outputs = cloud.endpoints.outputs
        cloud.start_worker(WORK_POOL, settings_of(outputs), role_arn=outputs["TaskRoleArn"])
        _greet(console, cloud.endpoints)
        _watch(console, cloud)


def _greet(console: Console, cloud: Endpoints) -> None:
    console.print(
        "Sluice is up. Ctrl-C stops it; its state is kept for the next start, `make clean` deletes it.",
        f"  Prefect UI   {cloud.prefect_ui_url}",
        f"  AWS          {cloud.aws_endpoint_url} ({cloud.region}; access key test, secret key test)",
        f"  landing      s3://{cloud.outputs['LandingBucket']}/incoming/DATASET/",
        f"  published    s3://{cloud.outputs['PublishedBucket']}/",
        "In another terminal:",
        "  .venv/bin/sluice upload FILE --dataset NAME",
        "  .venv/bin/sluice status",
        sep="\n",
    )


def _watch(console: Console, cloud: LocalCloud) -> None:
    """Print a line for every new receipt; raise when a process died."""
    uploads = Uploads(cloud.endpoints)
    seen = set(uploads.runs_with_receipt())
    while True:
        cloud.check()
        new = [run_id for run_id in uploads.runs_with_receipt() if run_id not in seen]
        seen.update(new)
        for receipt in uploads.receipts(reversed(new[:_NEWS_SHOWN])):
            reasons = "; ".join(details_of(receipt)[:3])
            console.out(
                f"{receipt.status:<9}  {visible_line(receipt.source.key)}  {rows_of(receipt)}  {reasons}".rstrip()
            )
        print_unreadable(console, uploads)
        time.sleep(_LOOK_SECONDS)
