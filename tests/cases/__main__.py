"""Runs every case and prints how many ended how; lists those that are not right. Exit code 1 if any is wrong or
needlessly refused."""

from __future__ import annotations

import sys
from collections import Counter

from tests.cases.all_cases import CASES
from tests.cases.case import Verdict, run

_BAD = (Verdict.WRONG, Verdict.REFUSED, Verdict.UNEXPLAINED)


def main() -> int:
    """Run the cases whose kind or name contains one of the arguments; without arguments all."""
    wanted = [case for case in CASES if not sys.argv[1:] or any(word in case.title for word in sys.argv[1:])]
    counts: Counter[Verdict] = Counter()
    for case in wanted:
        result = run(case)
        counts[result.verdict] += 1
        if result.verdict in _BAD:
            print(f"{result.verdict}: {case.title}\n    {result.details[:400]}")
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict))
    return int(any(counts[verdict] for verdict in _BAD))


if __name__ == "__main__":
    sys.exit(main())
