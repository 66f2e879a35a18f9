"""Measures how long a file takes from its upload to its receipt, and how long each step takes.

    make bench-latency

Each round uploads a file while no task is running (cold), and then, one after another, files for which the task is
still running (warm). The time of a step is that of its request: SendMessage, StartExecution, RunTask, the read of the
file, and the write of the receipt. On AWS, a cold file also waits until Fargate has pulled the image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from flows.pipeline.receipt import receipt_key
from lambda_trigger.message import UploadMessage
from tests.benchmarks.bench_burst import running, say
from tests.benchmarks.counts import seconds_of
from tests.chain.chain import Chain
from tests.chain.files import good_orders
from tests.emulator.records import decisions_of

_REST_SECONDS = 300.0
STEPS = (
    "message sent",
    "drain started",
    "task launched",
    "file read",
    "receipt written",
)


def steps_of(chain: Chain, upload: UploadMessage, since: float) -> dict[str, float]:
    """Return the time of each step of an upload, in seconds since 1970. The upload must be the only one that was in
    progress after `since`."""
    made: dict[str, float] = {}
    receipt = f"/{receipt_key(upload.run_id)}"
    for decision in decisions_of(chain.cloud.state_dir):
        at = seconds_of(decision["time"])
        if decision["allowed"] and at >= since and (step := _step_of(decision, upload, receipt)):
            made.setdefault(step, at)
    return made


def _step_of(decision: Mapping[str, Any], upload: UploadMessage, receipt: str) -> str | None:
    action, resource = decision["action"], str(decision["resource"])
    simple = {
        "sqs:SendMessage": "message sent",
        "states:StartExecution": "drain started",
        "ecs:RunTask": "task launched",
    }
    if action in ("s3:GetObject", "s3:GetObjectVersion") and resource.endswith(upload.key):
        return "file read"
    if action == "s3:PutObject" and resource.endswith(receipt):
        return "receipt written"
    return simple.get(action)


class Latencies:
    """The latencies of all uploads: the seconds of each step since the previous one, and the total."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, uploaded: float, made: Mapping[str, float]) -> float:
        """Add an upload, and return the seconds from its upload to its receipt."""
        before = uploaded
        for step, at in sorted(made.items(), key=lambda item: item[1]):
            self._seconds[step].append(at - before)
            before = at
        self._seconds["total"].append(made["receipt written"] - uploaded)
        return self._seconds["total"][-1]

    def lines(self) -> Iterable[str]:
        """Yield the lines of the table."""
        for step in (*STEPS, "total"):
            values = self._seconds.get(step)
            if values:
                yield f"  {step:<16} {statistics.median(values):7.2f} {percentile(values, 95):7.2f}"


def percentile(values: list[float], percent: float) -> float:
    """Return the smallest of the values that at least `percent` percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def upload_one(chain: Chain, rows: int, latencies: Latencies) -> float:
    """Upload a file, wait for its receipt, add the times of its steps, and return the seconds that it took."""
    began = time.time()
    upload = chain.upload(f"incoming/orders/{began:.3f}.csv", good_orders(rows, start=int(began)))
    chain.done(upload)
    return latencies.add(began, steps_of(chain, upload, began))


def wait_for_rest(chain: Chain) -> None:
    """Wait until no task and no drain is running."""
    chain.wait_for(lambda: not chain.tasks() and not chain.drains("RUNNING"), "the task to leave", _REST_SECONDS)


def main() -> None:
    """Run the benchmark, and print medians and 95th percentiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="each with a cold file (default: 8)")
    parser.add_argument("--warm", type=int, default=4, help="files of a round that find the task (default: 4)")
    parser.add_argument("--rows", type=int, default=1_000, help="of each file (default: 1000)")
    parser.add_argument("--window", type=int, default=30, help="WindowSeconds: how long a task stays (default: 30)")
    given = parser.parse_args()
    cold, warm = Latencies(), Latencies()
    with running({"WindowSeconds": str(given.window), "SettleSeconds": "10", "SweepState": "DISABLED"}) as chain:
        for number in range(1, given.rounds + 1):
            wait_for_rest(chain)
            time.sleep(given.window - time.time() % given.window + 1)  # the task then stays for a whole window
            took = upload_one(chain, given.rows, cold)
            others = [upload_one(chain, given.rows, warm) for _ in range(given.warm) if chain.tasks()]
            say(
                f"round {number} of {given.rounds}: cold {took:.1f} s, warm {', '.join(f'{one:.1f}' for one in others)}"
            )
    for name, latencies in (("cold: no task is running", cold), ("warm: a task is running", warm)):
        print(
            f"{name}, seconds since the previous step:\n  {'':<16} {'median':>7} {'p95':>7}",
            *latencies.lines(),
            sep="\n",
        )


if __name__ == "__main__":
    main()
