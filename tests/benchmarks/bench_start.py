"""Measures how long the container's process takes until it begins its first upload, compared with imports alone.

    python -m tests.benchmarks.bench_start [pairs]

The process runs with its queue, its buckets and a Prefect server, and the upload is in the queue before it starts. It
runs alternately with a Python process that only imports prefect, pandas and pyarrow. The minimum of the runs counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.task_process import Stage, stage
from tests.chain.files import good_orders

_IMPORTS = "import prefect, pandas, pyarrow"
_LINE = "{:<52}{:>8}{:>8}{:>11}{:>12}"


def main(pairs: int = 5) -> None:
    """Run the benchmark, and print the table."""
    with tempfile.TemporaryDirectory() as name, stage(Path(name)) as around:
        (around.files / "small.csv").write_bytes(good_orders(1000))
        _task(around, 0)  # compiles the modules that have no bytecode yet
        bare, task = [], []
        for number in range(1, pairs + 1):
            bare.append(_bare(around))
            task.append(_task(around, number))
    least = _least(bare)
    print(_LINE.format("", "CPU s", "wall s", "CPU ratio", "wall ratio"))
    for what, seconds in (
        (_IMPORTS, least),
        ("start of the task -> its first upload", _least([first for first, _ in task])),
        ("start of the task -> its end, after one upload", _least([whole for _, whole in task])),
    ):
        ratios = [f"{one / other:.2f}" for one, other in zip(seconds, least, strict=True)]
        print(_LINE.format(what, *(f"{one:.2f}" for one in seconds), *ratios))


def _bare(around: Stage) -> tuple[float, float]:
    before, began = os.times(), time.monotonic()
    subprocess.run([sys.executable, "-c", _IMPORTS], env=around.environment, check=True)
    wall, after = time.monotonic() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, wall


def _task(around: Stage, number: int) -> tuple[tuple[float, float], tuple[float, float]]:
    done = around.run([f"incoming/orders/{number}/small.csv"])
    if done.code or len(done.done()) != 1:
        raise SystemExit(f"the task ended with {done.code}: {done.lines[-1:]}")
    return done.first_upload, (done.cpu, done.wall)


def _least(runs: list[tuple[float, float]]) -> tuple[float, float]:
    return min(cpu for cpu, _ in runs), min(wall for _, wall in runs)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
