"""Measures how much memory and disk space a file needs if a preprocessing step gets all rows at once, or if rows must
wait for the end of the file.

    python -m tests.benchmarks.bench_whole_file [--megabytes 50 100 200]

Each file is refined in a separate process, with the memory settings of the image. The last two columns of the table are
the growth of the peak memory and the peak disk space, both divided by the size of the file. The files here are small,
but all waiting rows are compressed and written to disk, like most waiting rows of a large file. "undeclared" is a
contract that lacks one of the columns.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from deployment import PROJECT_ROOT
from tests.benchmarks.processes import image_allocators
from tests.benchmarks.yardstick.orders import write_orders

_YARDSTICK = Path(__file__).parent / "yardstick"
_ROWS_PER_MB = 8_400
_EXPECTATIONS = re.compile(r"expectations:\n(?:  .*\n)+")
_STEPS = re.compile(r"preprocess:\n(?:  .*\n)+")
_UNIQUE = "expectations:\n  - expect_column_values_to_be_unique: {column: Order ID}\n"
_CONTRACTS = {
    "nothing waits": "",
    "@whole_table": "preprocess:\n  - steps.same\n",
    "unique": _UNIQUE,
    "fitted step": "preprocess:\n  - standardize: {columns: [Quantity]}\n",
    "undeclared": "unknown_columns: evolve\n",
}
_STEPS_PY = """
from flows.refinery.preprocess import whole_table

@whole_table
def same(rows):
    return rows
"""
_LINE = "{:<16}{:<12}{:>8}{:>10}{:>10}{:>10}{:>14}{:>12}"


def main() -> None:
    """Run the benchmark, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--formats", nargs="+", default=["csv", "jsonl", "parquet"])
    parser.add_argument("--contracts", nargs="+", choices=[*_CONTRACTS], default=[*_CONTRACTS])
    given = parser.parse_args()
    print(_LINE.format("contract", "format", "MB", "base MB", "peak MB", "disk MB", "memory/byte", "disk/byte"))
    with tempfile.TemporaryDirectory() as name:
        for megabytes in given.megabytes:
            files = _files(Path(name), megabytes)
            for contract in given.contracts:
                for kind in given.formats:
                    _print_line(contract, kind, files[kind])


def _files(folder: Path, megabytes: int) -> dict[str, Path]:
    files = {kind: folder / f"{megabytes}.{kind}" for kind in ("csv", "jsonl", "parquet")}
    write_orders(files["csv"], megabytes * _ROWS_PER_MB)
    table = pa_csv.read_csv(files["csv"])
    pq.write_table(table, files["parquet"], row_group_size=100_000)
    table.to_pandas().to_json(files["jsonl"], orient="records", lines=True, date_format="iso")
    return files


def _print_line(contract: str, kind: str, file: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.bench_whole_file", "--one", contract, str(file)]
    environment = os.environ | image_allocators()
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT)
    found, size = json.loads(done.stdout.splitlines()[-1]), file.stat().st_size
    mb = [f"{value / 1e6:,.0f}" for value in (size, found["base"], found["peak"], found["disk"])]
    ratios = [f"{(found['peak'] - found['base']) / size:.2f}", f"{found['disk'] / size:.2f}"]
    print(_LINE.format(contract, kind, *mb, *ratios), flush=True)


# --- in a separate process ------------------------------------------------------------------------------------------


def _measure(contract: str, file: Path) -> None:
    from deployment.commands.contract_check import check_file
    from flows.refinery.check_contract import check_contract
    from flows.refinery.contract.loading import load_contract
    from flows.refinery.preprocess import step_pipeline
    from flows.refinery.read import partition_spool
    from flows.refinery.validate import judged_file

    partition_spool.UNCOMPRESSED_BYTES = 0
    judged_file._IN_MEMORY_BYTES = step_pipeline._IN_MEMORY_BYTES = partition_spool._IN_MEMORY_BYTES = 0
    with tempfile.TemporaryDirectory() as name:
        folder, work = Path(name) / "bench", Path(name) / "work"
        folder.mkdir()
        work.mkdir()
        text = _STEPS.sub("", _EXPECTATIONS.sub("", (_YARDSTICK / "contract.yaml").read_text()))
        text = text.replace("  Note: string\n", "") if contract == "undeclared" else text
        text += "bad_rows: {max_fraction: 1}\n" + _CONTRACTS[contract]
        (folder / "contract.yaml").write_text(text.replace("yardstick", "bench"))
        (folder / "steps.py").write_text(_STEPS_PY)
        loaded = load_contract(folder)
        check_contract(loaded)
        base, over, highest = _peak(), threading.Event(), 0

        def watch() -> None:
            nonlocal highest
            while not over.wait(0.05):
                highest = max(highest, _bytes_below(work))

        watching = threading.Thread(target=watch)
        watching.start()
        checked = check_file(loaded, file, work)
        over.set()
        watching.join()
        assert checked.accepted, checked.reasons
        print(json.dumps({"base": base, "peak": _peak(), "disk": highest}))


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024  # ru_maxrss would be the parent's, if that is larger


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # the file has been deleted in the meantime
            continue
    return total


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
