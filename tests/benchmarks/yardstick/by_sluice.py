"""The work of the benchmark as Sluice does it, in bounded memory. It also computes the results of all checks and the
hashes of the files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from flows.refinery.contract.loading import load_contract
from flows.refinery.contract.model import Contract
from flows.refinery.refine import refine_file


def refine(source: Path, folder: Path) -> int:
    """Write the files with good and bad rows, and return the number of good rows."""
    return refine_file(source, _contract(), folder).rows_published


@cache
def _contract() -> Contract:
    return load_contract(Path(__file__).parent)
