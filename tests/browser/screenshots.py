"""Takes the screenshots of Prefect's real UI for the documentation: `make screenshots`.

It starts a pipeline, which processes the demo's files, and writes the screenshots to docs/images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
from playwright.sync_api import Page

from deployment import PROJECT_ROOT
from deployment.commands.demo import SAMPLES
from deployment.commands.uploads import Uploads
from tests.browser.chromium import browser, new_page
from tests.browser.control_room import ControlRoom
from tests.chain.chain import running_chain

IMAGES = PROJECT_ROOT / "docs" / "images"
_DEADLINE_SECONDS = 180.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Take all screenshots and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    parser.add_argument("--folder", type=Path, default=IMAGES, help="where the pictures go (default docs/images)")
    parser.add_argument("--ui", help="the URL of a Prefect UI that already shows the demo's files")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.ui:
        _take(given.ui, given.folder)
        return 0
    with running_chain() as chain:
        uploads = Uploads(chain.cloud.endpoints)
        folder = chain.cloud.state_dir / "demo"
        folder.mkdir()
        followed = []
        for sample in SAMPLES:
            sample.write(folder / sample.file_name)
            key = f"incoming/{sample.dataset}/{sample.file_name}"
            followed.append(uploads.upload(folder / sample.file_name, key))
        if not uploads.follow(followed, deadline_seconds=_DEADLINE_SECONDS):
            print("not all of the demo's files were published or rejected in time", file=sys.stderr)
            return 1
        _take(chain.cloud.endpoints.prefect_ui_url, given.folder)
    return 0


def _take(ui_url: str, folder: Path) -> None:
    answer = httpx.get(f"{ui_url}/api/deployments/name/process-upload/sluice", timeout=30)
    deployment_id = answer.raise_for_status().json()["id"]
    with browser() as running:
        page = new_page(running)
        room = ControlRoom(page, ui_url)
        room.open_runs()
        _shoot(page, folder / "prefect-runs.png", height=1300)
        room.open_run("orders with bad rows.csv")
        room.wait_for_log("receipt")
        _shoot(page, folder / "prefect-run.png", height=1300)
        room.open_artifact("summary")
        _shoot(page, folder / "prefect-summary.png", height=1350)
        room.open_run("orders mostly wrong.csv")
        room.wait_for_log("receipt")
        _shoot(page, folder / "prefect-rejected.png", height=1300)
        room.open_custom_run(deployment_id)
        room.field("key").fill("incoming/orders/orders mostly wrong.csv")
        room.switch("dry_run").click()
        _shoot(page, folder / "prefect-custom-run.png", height=1350)


def _shoot(page: Page, path: Path, *, height: int) -> None:
    page.set_viewport_size({"width": 1440, "height": height})
    page.wait_for_timeout(1_500)  # the graphs are animated, and no event marks the end
    page.screenshot(path=path)
    print(f"{path} ({path.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    sys.exit(main())
