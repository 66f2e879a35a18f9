"""Runs the test cases, and prints how many have each verdict, and each case that is wrong, needlessly rejected or badly
explained. It also reads the hostile files, and prints the result and the memory limit of each. The exit code is 1 if it
prints such a case, or if the result of a hostile file is not allowed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from tests.cases.all_cases import CASES
from tests.cases.case import Verdict, run
from tests.cases.hostile import FILES

_BAD = (Verdict.WRONG, Verdict.REFUSED, Verdict.UNEXPLAINED)


def main() -> int:
    """Run the cases and hostile files whose title contains one of the command-line arguments, or all of them if there
    are no arguments. Return the exit code."""

    def is_wanted(title: str) -> bool:
        return not sys.argv[1:] or any(word in title for word in sys.argv[1:])

    wanted = [case for case in CASES if is_wanted(case.title)]
    counts: Counter[Verdict] = Counter()
    for case in wanted:
        result = run(case)
        counts[result.verdict] += 1
        if result.verdict in _BAD:
            print(f"{result.verdict}: {case.title}\n    {result.details[:400]}")
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict))
    hostile = [_ends_well(name) for name in FILES if is_wanted(f"hostile: {name}")]
    return int(any(counts[verdict] for verdict in _BAD) or not all(hostile))


def _ends_well(name: str) -> bool:
    file = FILES[name]
    try:
        ending = file.ending()
    except subprocess.CalledProcessError as error:
        ending = f"the reader ended with {error.returncode}"
    print(f"hostile: {name}: {ending}, at most {file.megabytes} MiB")
    return ending in file.ends


if __name__ == "__main__":
    sys.exit(main())
