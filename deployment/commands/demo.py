"""`sluice demo`: processes valid and invalid files in the local cloud, and checks the outcome of each."""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from deployment.commands.options import DEFAULT_STATE
from deployment.commands.show import print_outcomes, shown_progress, shown_steps
from deployment.commands.uploads import TrackedUpload, Uploads, UploadState
from deployment.local.cloud import LocalCloud
from deployment.local.endpoints import Endpoints
from deployment.local.running import some_cloud
from deployment.local.state_lock import StateLock
from deployment.samples import orders
from deployment.samples.orders import ExpectedOutcome

_RECORDED_WITHIN_SECONDS = 60
_PENGUINS = Path(orders.__file__).with_name("penguins.csv")


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the files that `sluice demo` uploads."""

    dataset: str
    file_name: str  # the name under which the file is uploaded
    write: Callable[[Path], ExpectedOutcome]  # writes the file and returns the expected outcome


def _write_penguins(path: Path) -> ExpectedOutcome:
    """Write the penguins file, which is real data. Two of its 344 rows lack the measurements, so they are
    quarantined."""
    shutil.copyfile(_PENGUINS, path)
    return ExpectedOutcome(344, published=342, quarantined=2, dropped=0, rejected=False)


def _orders(rows: int, flavour: orders.Flavour) -> Callable[[Path], ExpectedOutcome]:
    return partial(orders.write, rows=rows, flavour=flavour)


SAMPLES = (
    Sample("penguins", "penguins.csv", _write_penguins),
    Sample("orders", "orders of today + tomorrow.csv", _orders(2000, "clean")),
    Sample("orders", "orders with bad rows.csv", _orders(1000, "bad_rows")),
    Sample("orders", "orders sent twice.csv", _orders(500, "duplicates")),
    Sample("orders", "orders without quantity.csv", _orders(500, "missing_column")),
    Sample("orders", "orders mostly wrong.csv", _orders(500, "too_many_bad")),
    Sample("orders", "not orders at all.csv", _orders(20, "not_a_table")),
    Sample("orders", "empty.csv", _orders(1, "empty")),
)


def demo(console: Console, local: LocalCloud, *, deadline_seconds: float, stay: bool) -> bool:
    """Upload the sample files, and return whether every file had the expected outcome.

    Args:
        deadline_seconds: how long to wait for the files to be processed.
        stay: whether to keep everything running until Ctrl-C.

    Raises:
        LocalCloudError: the local cloud could not be started, or one of its processes died.
        StackError: the stack could not be deployed.
    """
    begun, was_running = time.monotonic(), StateLock(local.state_dir).is_taken()
    with ExitStack() as running:
        with shown_steps(console, begun) as on_step:
            cloud = running.enter_context(some_cloud(local, on_step))
        console.print(f"Watch the runs at {cloud.prefect_ui_url}")
        as_expected = _run_samples(console, cloud, begun, deadline_seconds)
        here = "" if local.state_dir == DEFAULT_STATE.resolve() else f" --state {local.state_dir}"
        read = f".venv/bin/sluice read penguins{here}"
        if was_running:
            console.print(f"To read the published rows: {read}")
        elif stay:
            console.print(f"Running until Ctrl-C: {cloud.prefect_ui_url}. In another terminal: {read}")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
        if not was_running:
            console.print("Stopping ...")
    console.print(f"Done in {time.monotonic() - begun:.0f} seconds.")
    if not was_running and not stay:
        up = "`make up`" if not here else f"`.venv/bin/sluice up{here}`"
        console.print(f"To read the published rows: {up}, then in another terminal: {read}")
    return as_expected


def _run_samples(console: Console, cloud: Endpoints, begun: float, deadline_seconds: float) -> bool:
    """Upload every sample file, wait for the outcomes, and return whether all are as expected."""
    uploads, prefix = Uploads(cloud), cloud.outputs["IncomingPrefix"]
    folder = cloud.state_dir / "demo"
    folder.mkdir(exist_ok=True)
    expected = [sample.write(folder / sample.file_name) for sample in SAMPLES]
    followed = []
    for sample in SAMPLES:
        name = f"{sample.dataset}/{sample.file_name}"
        followed.append(uploads.upload(folder / sample.file_name, f"{prefix}{name}", name))
    with shown_progress(console, followed, begun) as on_look:
        uploads.follow(followed, deadline_seconds=deadline_seconds, on_look=on_look)
    # A task writes the receipt before it ends the run in Prefect, so stopping now would leave unfinished runs.
    if not uploads.wait_until_recorded(followed, deadline_seconds=_RECORDED_WITHIN_SECONDS):
        console.print("Prefect does not show every outcome yet; the missing outcomes are recorded at the next start.")
    console.print()
    print_outcomes(console, cloud, followed)
    differences = [
        f"{upload.name}: {difference}"
        for upload, written in zip(followed, expected, strict=True)
        if (difference := difference_from_expected(upload, written))
    ]
    console.print()
    for difference in differences:
        console.out(f"Not as expected: {difference}", style="bold red")
    if not differences:
        console.print(f"All {len(followed)} files ended as expected.", style="green")
    return not differences


def difference_from_expected(upload: TrackedUpload, written: ExpectedOutcome) -> str:
    """Return how an upload's outcome differs from the expected one, or "" if it does not differ."""
    expected_stage = UploadState.REJECTED if written.rejected else UploadState.PUBLISHED
    if not upload.done:
        return f"still {upload.stage} at the deadline {upload.note}".rstrip()
    if upload.stage is not expected_stage or upload.receipt is None:
        return f"{upload.stage} instead of {expected_stage} {upload.problem}".rstrip()
    rows = upload.receipt.rows
    found = (rows.rows_in, rows.published, rows.quarantined_total, rows.dropped_total)
    wanted = (written.rows, written.published, written.quarantined, written.dropped)
    if found != wanted:
        return f"rows in, published, quarantined, dropped are {found} instead of {wanted}"
    return ""
