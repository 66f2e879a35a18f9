"""Generates random files, refines them, and prints for each format how many were published, published with rows in
quarantine, rejected, or wrong. The exit code is 1 if the result for any file is wrong.

Each file depends only on the seed and its number. `--only NUMBER` runs a single file again and shows it.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter

from tests.cases.round_trip.compare import outcome
from tests.cases.round_trip.files import a_file

_WARM_UP_FILES = 20


def main() -> int:
    """Run the files that are generated from one seed. Return the exit code."""
    parser = argparse.ArgumentParser(prog="round_trip", description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the number of one file")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    for number in [options.only] if options.only is not None else range(options.files):
        written, rows_per_partition = a_file(options.seed, number)
        ended, details = outcome(written, rows_per_partition)
        counts[written.form, ended] += 1
        if number == _WARM_UP_FILES:
            gc.freeze()  # garbage collections after each partition then skip the imported modules, which stay in memory
        if ended == "wrong":
            print(f"seed {options.seed}, file {number}, {written.form}: {details}", flush=True)
        if options.only is not None:
            print(f"{ended} {details}\ncontract {written.contract}\n{written.content!r}")
    _show(counts)
    return int(any(ended == "wrong" for _, ended in counts))


def _show(counts: Counter[tuple[str, str]]) -> None:
    outcomes = ("published", "quarantined", "rejected", "wrong")
    by_form = {form: [counts[form, ended] for ended in outcomes] for form in sorted({form for form, _ in counts})}
    total = [sum(column) for column in zip(*by_form.values(), strict=True)]
    for form, cells in {"format": outcomes, **by_form, "all": total}.items():
        print(f"{form:22}" + "".join(f"{cell:>13}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
