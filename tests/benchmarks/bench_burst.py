"""Counts what a burst of uploads costs, such as requests, tasks and CPU seconds.

    make bench-burst FILES=1000

It uploads a single file, and then many files at the same time, to a local cloud with the window lengths of AWS, and
prints one table with the targets. It takes about five minutes longer than the burst itself. `--record` stores the
counts, from which `python -m tests.unit.docs.doc_tables` generates the tables of costs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from deployment.local.pipeline import STACK_NAME, bring_up
from deployment.local.ports import free_port
from flows.pipeline.receipt import receipt_key
from lambda_trigger.message import UploadMessage
from tests.benchmarks import prices
from tests.benchmarks.counts import CountedCloud, Counts, Meter
from tests.chain.chain import Chain
from tests.chain.files import good_orders
from tests.emulator.records import EXTENSIONS

_UPLOADERS = 8
_PROGRESS_SECONDS = 10
_LOOK_SECONDS = 2.0
_CATCH_UP_SECONDS = 300.0
AWS_WINDOWS = {"WindowSeconds": "60", "SettleSeconds": "30", "SweepState": "DISABLED"}
"""The template's defaults instead of the local cloud's shorter times. The sweep runs only when the benchmark starts
it."""


@contextmanager
def running(parameters: dict[str, str]) -> Iterator[Chain]:
    """Run the local pipeline as `sluice up` does, but in a temporary folder and with counted requests to Prefect."""
    extensions = [name for name in EXTENSIONS if not name.endswith(("memory_limit", "warm_tasks"))]
    extensions.append("tests.emulator.lambda_queue")
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder,
        CountedCloud(Path(folder) / "state", prefect_port=free_port(), emulator_extensions=extensions) as cloud,
    ):
        yield Chain(cloud, bring_up(cloud, parameters=parameters, on_step=say))


def say(text: str) -> None:
    """Print a line of progress without buffering."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def measure(chain: Chain, files: int, rows: int, seconds: float) -> Counts:
    """Upload files at the same time, wait until all have receipts and everything is at rest, and return the counts.

    After that, start sweeps until Prefect shows all uploads. They affect only `unrecorded_later`.
    """
    meter = Meter(chain)
    uploads, took = _receipts_of(chain, meter, files, rows, seconds)
    _wait(lambda: int(_at_rest(chain)), 1, "drain over", seconds)
    counts = meter.counts(uploads, seconds=took, unrecorded=meter.unrecorded(uploads), unrecorded_later=0)
    return replace(counts, unrecorded_later=_caught_up(chain, meter, uploads))


def measure_floor(chain: Chain, files: int, rows: int, seconds: float) -> float:
    """Return how many files per second are processed by tasks that only fetch each file and write a receipt."""
    with chain.tasks_that(["python", "-m", "tests.benchmarks.fetch_only"]):
        _, took = _receipts_of(chain, Meter(chain), files, rows, seconds)
        _wait(lambda: int(_at_rest(chain)), 1, "drain over", seconds)
    return files / took


def _receipts_of(
    chain: Chain, meter: Meter, files: int, rows: int, seconds: float
) -> tuple[list[UploadMessage], float]:
    """Upload files at the same time, and wait for their receipts. Return the uploads, and the seconds from the first
    upload to the last receipt."""
    bodies = [good_orders(rows, start=1 + rows * number) for number in range(files)]
    began = time.time()
    with ThreadPoolExecutor(_UPLOADERS) as pool:
        names = [f"incoming/orders/{began:.0f}-{number}.csv" for number in range(files)]
        uploads = list(pool.map(chain.upload, names, bodies))
    say(f"uploaded {files} in {time.time() - began:.0f} s")
    _wait(lambda: _receipts(chain, uploads), files, "receipts", seconds)
    return uploads, meter.last_receipt() - began


def _receipts(chain: Chain, uploads: Sequence[UploadMessage]) -> int:
    written = set(chain.keys("receipts/"))
    return sum(receipt_key(upload.run_id) in written for upload in uploads)


def _at_rest(chain: Chain) -> bool:
    return chain.queue_is_empty() and not chain.tasks() and not chain.drains("RUNNING")


def _caught_up(chain: Chain, meter: Meter, uploads: Sequence[UploadMessage]) -> int:
    """Start sweeps, as the schedule does, until all uploads are recorded in Prefect or a time limit is reached. Return
    how many are still not recorded."""
    deadline = time.monotonic() + _CATCH_UP_SECONDS
    while (unrecorded := meter.unrecorded(uploads)) and time.monotonic() < deadline:
        say(f"{unrecorded} not recorded; starting the sweep")
        chain.sweep()
        _wait(lambda: int(_at_rest(chain)), 1, "sweep over", _CATCH_UP_SECONDS)
        time.sleep(_PROGRESS_SECONDS)
    return unrecorded


def _wait(look: Callable[[], int], wanted: int, what: str, seconds: float) -> None:
    said = deadline = time.monotonic()
    deadline += seconds
    while (found := look()) < wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"after {seconds:.0f} s: {what}: {found} of {wanted}")
        if time.monotonic() - said > _PROGRESS_SECONDS:
            said = time.monotonic()
            say(f"{what}: {found} of {wanted}")
        time.sleep(_LOOK_SECONDS)


# --- the table --------------------------------------------------------------------------------------------------------


def table(alone: Counts, burst: Counts) -> str:
    """Return a table of what was counted, with the targets."""
    rows = [("", "1 alone", f"{burst.files:,} at once", "target"), *_rows(alone, burst)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _rows(alone: Counts, burst: Counts) -> Iterator[tuple[str, str, str, str]]:
    def row(what: str, value: Callable[[Counts], str], target: str = "") -> tuple[str, str, str, str]:
        return what, value(alone), value(burst), target

    yield row("tasks launched", lambda c: str(len(c.tasks)), f"1; at most {2 * burst.asked} (2 x asked)")
    yield row("state transitions", lambda c: str(c.transitions), "6; 50")
    yield row("StartExecution per upload", lambda c: f"{c.starts / c.files:.2f}", "0.5 at once")
    yield row("seconds to the last receipt", lambda c: f"{c.seconds:.1f}")
    yield row("files per second", lambda c: f"{c.files / c.seconds:.2f}", "5 at once")
    yield row("CPU of tasks and Lambda per file, s", lambda c: f"{c.cpu['tasks'] / c.files:.3f}")
    yield row("CPU of the AWS emulator per file, s", lambda c: f"{c.cpu['cloud'] / c.files:.3f}")
    yield row("CPU of Prefect's server per file, s", lambda c: f"{c.cpu['prefect'] / c.files:.3f}", "0.4; 0.06")
    yield row("Prefect requests per upload", lambda c: f"{c.prefect_requests / c.files:.2f}", "13; 0.5")
    yield row("unrecorded when the drain is over", lambda c: str(c.unrecorded))
    yield row("unrecorded after catching up", lambda c: str(c.unrecorded_later), "0; 0")
    for action in sorted(set(alone.aws) | set(burst.aws)):
        yield row(f"{action} per upload", lambda c, action=action: f"{c.aws.get(action, 0) / c.files:.2f}")  # type: ignore[misc]
    for line_alone, line_burst in zip(prices.bill(alone), prices.bill(burst), strict=True):
        yield f"$ per 1,000: {line_alone.what}", f"{line_alone.dollars:.3f}", f"{line_burst.dollars:.3f}", ""
    yield row("$ per 1,000 files", lambda c: f"{prices.total(prices.bill(c)):.2f}", "1.20; 0.10")


def measure_sweep(chain: Chain) -> Counts:
    """Start a sweep that finds nothing to do, and return its counts."""
    meter = Meter(chain)
    chain.sweep()
    _wait(lambda: int(_at_rest(chain)), 1, "sweep over", _CATCH_UP_SECONDS)
    return meter.counts([], seconds=0, unrecorded=0, unrecorded_later=0)


def main() -> None:
    """Run the benchmark, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000, help="uploads at once (default: 1000)")
    parser.add_argument("--rows", type=int, default=1_000, help="of each file (default: 1000)")
    parser.add_argument("--seconds", type=float, default=3_600, help="when to give up waiting (default: 3600)")
    parser.add_argument("--floor", action="store_true", help="also measure tasks that only fetch and write receipts")
    parser.add_argument("--record", action="store_true", help="keep the counts for the cost page")
    given = parser.parse_args()
    with running(AWS_WINDOWS) as chain:
        say(f"the stack {STACK_NAME} is up; {os.cpu_count()} cores")
        sweep = measure_sweep(chain)
        alone = measure(chain, 1, given.rows, given.seconds)
        say("the lone file is done")
        burst = measure(chain, given.files, given.rows, given.seconds)
        floor = measure_floor(chain, given.files, given.rows, given.seconds) if given.floor else 0.0
    print(table(alone, burst), flush=True)
    if floor:
        print(f"files per second of tasks that only fetch and write receipts: {floor:.2f}")
    if given.record:
        measured = {"sweep": sweep, "alone": alone, "burst": burst}
        print(*(counts.record(name) for name, counts in measured.items()), sep="\n")


if __name__ == "__main__":
    main()
