"""`sluice up`: runs the local cloud and prints the outcomes of uploads until Ctrl-C."""

import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import httpx
from rich.console import Console

from deployment.commands import first_of, visible_line
from deployment.commands.show import details_of, print_unreadable, rows_of, shown_steps
from deployment.commands.uploads import Uploads
from deployment.local.cloud import LocalCloud
from deployment.local.endpoints import Endpoints
from deployment.local.pipeline import WORK_POOL, settings_of
from deployment.local.running import started_cloud

_LOOK_SECONDS = 2.0
_NEWS_SHOWN = 20
_REASONS_SHOWN = 3
_OUTCOMES = ("sluice.upload.published", "sluice.upload.rejected")
_EVENTS = 50  # the largest page that Prefect's API returns
_EVENTS_COME_WITHIN = timedelta(minutes=10)


def up(console: Console, cloud: LocalCloud) -> None:
    """Start the local cloud, and print each new receipt and failed attempt until Ctrl-C or SIGTERM. Raise
    LocalCloudError if the local cloud could not be started, or if one of its processes died."""
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
        "Sluice is up. Ctrl-C stops it. Its state is kept for the next start; `make clean` deletes it.",
        f"  Prefect UI   {cloud.prefect_ui_url}",
        f"  AWS          {cloud.aws_endpoint_url} ({cloud.region}; access key test, secret key test)",
        f"  landing      s3://{cloud.outputs['LandingBucket']}/incoming/DATASET/",
        f"  published    s3://{cloud.outputs['PublishedBucket']}/",
        "In another terminal:",
        "  .venv/bin/sluice upload FILE ... [--dataset NAME]",
        "  .venv/bin/sluice status",
        "  .venv/bin/sluice read DATASET",
        sep="\n",
    )


def _watch(console: Console, cloud: LocalCloud) -> None:
    """Print a line for each new receipt and failed attempt, in an endless loop. Raise ServiceDied if one of the local
    cloud's processes died."""
    uploads, outcomes = Uploads(cloud.endpoints), Outcomes(cloud.endpoints.prefect_api_url)
    attempts = uploads.runs_with_attempt()
    while True:
        cloud.check()
        attempts_before, attempts = attempts, uploads.runs_with_attempt()
        for attempt in uploads.attempts(_news(attempts_before, attempts)):
            state = "failed" if attempt.given_up else "retrying"
            console.out(f"{state:<9}  {visible_line(attempt.upload.key)}  {attempt.reason}")
        for receipt in uploads.receipts(outcomes.news()):
            reasons = "; ".join(first_of(details_of(receipt), _REASONS_SHOWN))
            console.out(
                f"{receipt.status:<9}  {visible_line(receipt.source.key)}  {rows_of(receipt)}  {reasons}".rstrip()
            )
        print_unreadable(console, uploads)
        time.sleep(_LOOK_SECONDS)


class Outcomes:
    """Finds new outcomes through their events in Prefect, which takes one request no matter how many receipts exist."""

    def __init__(self, api_url: str) -> None:
        self._url, self._begun = f"{api_url}/events/filter", datetime.now(UTC)
        self._known: set[str] = set()

    def news(self) -> list[str]:
        """Return the IDs of the runs that got an outcome since the last call, oldest first, at most the newest 50."""
        since = max(self._begun, datetime.now(UTC) - _EVENTS_COME_WITHIN)
        wanted = {"occurred": {"since": since.isoformat()}, "event": {"name": list(_OUTCOMES)}}
        try:
            answer = httpx.post(
                self._url, json={"filter": wanted, "limit": _EVENTS}, trust_env=False
            ).raise_for_status()
        except httpx.HTTPError:
            return []  # `_watch` detects a server that has died
        events = {event["id"]: event["payload"]["run_id"] for event in answer.json()["events"]}
        news = [run_id for event_id, run_id in events.items() if event_id not in self._known]
        self._known = set(events)
        return news[::-1]


def _news(before: dict[str, datetime], now: dict[str, datetime]) -> list[str]:
    """Return the IDs of the runs that are new in `now` or were written again since `before`, oldest first, at most the
    newest 20. Both map the ID of a run to the time when its failed attempt was written, newest first."""
    return [run_id for run_id, written in now.items() if before.get(run_id) != written][_NEWS_SHOWN - 1 :: -1]
