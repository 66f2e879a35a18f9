"""Measures the peak memory of the container's process with Prefect, for files of several formats and sizes.

    python -m tests.benchmarks.bench_memory [--megabytes 10 100 1000] [--files 50] [--large 10000] [--formats csv]

The process runs with its queue, its buckets and a Prefect server, once for each format and size. Unless `--files` is 0,
a last process handles many files one after another. `--large` adds a CSV file with that many megabytes. `--ranges`
reads all files in byte ranges, as if the disk were too small for copies. `--unique` adds the yardstick's rule that
order IDs are unique. `--disk` names a folder for the task's files, such as one on a small disk. `--record` stores the
results for docs/performance.md, whose table and plot `python -m tests.unit.docs.doc_tables` then generates.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tests.benchmarks.memory_peaks import Peak, record_peaks
from tests.benchmarks.task_process import Outcome, Stage, stage
from tests.benchmarks.yardstick.orders import write_orders

_YARDSTICK = Path(__file__).parent / "yardstick"
_BLOCK_ROWS = 100_000
_LINE = "{:<14}{:>9}{:>8}{:>9}{:>9}{:>10}{:>14}{:>10}  {}"


def main() -> None:
    """Run the benchmark, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1_000])
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=[*_WRITERS], default=[*_WRITERS])
    parser.add_argument("--ranges", action="store_true")
    parser.add_argument("--unique", action="store_true")
    parser.add_argument("--disk", type=Path)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as name, stage(Path(name)) as around:
        block = Path(name) / "block.csv"
        write_orders(block, _BLOCK_ROWS)
        settings = {"SLUICE_CONTRACTS_FOLDER": str(_write_contracts(Path(name) / "contracts", is_unique=given.unique))}
        settings |= {"SLUICE_STAGE_TIMEOUT_SECONDS": "43200", "SLUICE_MAX_OBJECT_BYTES": str(10**12)}
        settings |= {"SLUICE_MAX_COPY_FRACTION": "0"} if given.ranges else {}
        settings |= {"TMPDIR": str(given.disk)} if given.disk else {}
        print(_LINE.format("format", "MB", "files", "CPU s", "wall s", "peak MB", "with readers", "disk MB", ""))
        for kind in given.formats:
            for megabytes in [*given.megabytes, *([given.large] if kind == "csv" and given.large else [])]:
                names = [_WRITERS[kind](around.files, block, megabytes)]
                peaks.append(measure(kind, megabytes, names, around, settings, given))
        if given.files:
            size = given.megabytes[0]
            names = [_WRITERS[kind](around.files, block, size) for kind in given.formats]
            names = [names[number % len(names)] for number in range(given.files)]
            peaks.append(measure("all, in turns", size, names, around, settings, given))
    if given.record:
        record_peaks(peaks)


def _write_contracts(folder: Path, *, is_unique: bool) -> Path:
    """Write the yardstick's contract, with or without its rule on unique values."""
    for dataset in ("default", "bench"):
        (folder / dataset).mkdir(parents=True)
    (folder / "default" / "contract.yaml").write_text("dataset: default\n")
    lines = (_YARDSTICK / "contract.yaml").read_text().replace("yardstick", "bench").splitlines()
    lines = [line for line in lines if is_unique or "to_be_unique" not in line]
    (folder / "bench" / "contract.yaml").write_text("\n".join([*lines, "source: incoming/bench/**", ""]))
    shutil.copyfile(_YARDSTICK / "steps.py", folder / "bench" / "steps.py")
    return folder


def measure(
    kind: str, megabytes: int, names: list[str], around: Stage, settings: Mapping[str, str], given: argparse.Namespace
) -> Peak:
    """Run one task with the given files, and print its line of the table."""
    keys = [f"incoming/bench/{number}/{kind}-{megabytes}/{name}" for number, name in enumerate(names)]
    done = around.run(keys, settings)
    _require(done, len(names))
    numbers = [round(number) for number in (done.cpu, done.wall, done.peak_mb, done.together_mb, done.disk_mb)]
    peak = Peak(kind, len(names), given.unique, megabytes, given.ranges, *numbers)
    print(_LINE.format(kind, megabytes, len(names), *numbers, peak.bar), flush=True)
    return peak


def _require(done: Outcome, files: int) -> None:
    published = [line for line in done.done() if line["status"] == "published"]
    if done.code or len(published) != files:
        raise SystemExit(f"the task ended with {done.code}: {done.lines[-3:]}")


def _csv(folder: Path, block: Path, megabytes: int) -> str:
    (folder / "block.csv").write_bytes(block.read_bytes())
    return f"{_times(block, megabytes)}x-block.csv"


def _json_lines(folder: Path, block: Path, megabytes: int) -> str:
    path = folder / "block.jsonl"
    if not path.exists():
        _table(block).to_pandas().to_json(path, orient="records", lines=True, date_format="iso")
    return f"{_times(path, megabytes)}x-block.jsonl"


def _parquet(folder: Path, block: Path, megabytes: int) -> str:
    """Write a Parquet file with the rows of a CSV file of the given size."""
    path, table = folder / f"{megabytes}.parquet", _table(block)
    if not path.exists():
        with pq.ParquetWriter(path, table.schema) as writer:
            for turn in range(_times(block, megabytes)):
                ids = pc.replace_substring_regex(table["Order ID"], "^00000", f"{turn:05d}")
                writer.write_table(table.set_column(0, "Order ID", ids))
    return path.name


_WRITERS: dict[str, Callable[[Path, Path, int], str]] = {"csv": _csv, "json lines": _json_lines, "parquet": _parquet}


def _table(block: Path) -> pa.Table:
    return pa_csv.read_csv(block)


def _times(path: Path, megabytes: int) -> int:
    return max(1, round(megabytes * 1e6 / path.stat().st_size))


if __name__ == "__main__":
    main()
