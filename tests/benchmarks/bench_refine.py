"""Measures CPU, wall time and memory of *refine*, of handwritten code for the same work, and of Great Expectations
alone.

    python -m tests.benchmarks.bench_refine [rows] [runs]

Each run is a new process, which first warms up on 1,000 rows. The candidates run alternately, so that a slow period of
the machine affects all of them, and the minimum of the runs counts. Sluice runs with the image's settings for memory
allocators, as in its tasks; the others run with the defaults of Python and Arrow.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import image_allocators

_SMALL_ROWS, _SMALL_RUNS = 1_000, 15
_REFERENCE = "pandas by hand"
_WORKS = {
    "yardstick: 12 columns, 12 rules, 4 steps": (
        "yardstick.orders:write_orders",
        {
            _REFERENCE: "yardstick.by_hand:with_pandas",
            "polars by hand": "yardstick.by_hand:with_polars",
            "sluice": "yardstick.by_sluice:refine",
        },
    ),
    "older work: 12 columns, 12 rules with aggregates, 2 steps": (
        "older_work:write_sample",
        {
            _REFERENCE: "older_work:by_hand",
            "stock GX": "older_work:by_stock_gx",
            "sluice": "older_work:by_sluice",
        },
    ),
}
_LINE = "{:<16}{:>8}{:>8}{:>9}{:>11}{:>12}{:>16}"


def main(rows: int = 1_000_000, runs: int = 3) -> None:
    """Run the benchmark, and print a table for each type of work."""
    with tempfile.TemporaryDirectory() as name:
        for work, (writer, candidates) in _WORKS.items():
            print(f"\n{work}; {rows:,} rows, CSV, least of {runs} runs")
            there = {
                name: call
                for name, call in candidates.items()
                if name != "polars by hand" or importlib.util.find_spec("polars")
            }
            large, small = Path(name) / "large.csv", Path(name) / "small.csv"
            _function(writer)(large, rows)
            _function(writer)(small, _SMALL_ROWS)
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in there}
            for _ in range(runs):
                for candidate, call in there.items():
                    found[candidate].append(_in_a_process(call, large, small))
            _print_table({name: _least(results) for name, results in found.items()})


def _print_table(found: dict[str, dict[str, Any]]) -> None:
    if len({one["good"] for one in found.values()}) > 1:
        raise SystemExit(f"they do not agree on the good rows: {found}")
    print(_LINE.format("", "CPU s", "wall s", "RSS MB", "CPU ratio", "wall ratio", "ms, 1,000 rows"))
    reference = found[_REFERENCE]
    for name, one in found.items():
        ratios = [f"{one[key] / reference[key]:.2f}" for key in ("cpu", "wall")]
        seconds = [f"{one[key]:.2f}" for key in ("cpu", "wall")]
        print(_LINE.format(name, *seconds, f"{one['rss']:.0f}", *ratios, f"{one['small'] * 1000:.0f}"))


def _least(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: min(one[key] for one in results) for key in results[0]}


def _in_a_process(call: str, large: Path, small: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_refine", "--child", call, str(large), str(small)]
    environment = os.environ | (image_allocators() if "sluice" in call else {})
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _child(call: str, large: Path, small: Path) -> None:
    warnings.simplefilter("ignore")
    refine = _function(call)
    _measured(refine, small)
    least = min(_measured(refine, small)["cpu"] for _ in range(_SMALL_RUNS))
    found = _measured(refine, large)
    print(json.dumps({**found, "rss": _peak_mb(), "small": least}), flush=True)


def _peak_mb() -> float:
    """Return the peak memory of this process in MiB. It is not read with getrusage, which may return the peak of the
    parent process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _measured(refine: Callable[[Path, Path], int], source: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        start, cpu_start = time.perf_counter(), time.process_time()
        good = refine(source, Path(folder))
        return {"good": good, "wall": time.perf_counter() - start, "cpu": time.process_time() - cpu_start}


def _function(call: str) -> Callable[..., Any]:
    module, name = call.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(f"tests.benchmarks.{module}"), name)
    return function


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], *map(Path, sys.argv[3:]))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
