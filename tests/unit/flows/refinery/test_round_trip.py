"""Random files are published with exactly the values that were written, or rejected for a correct reason."""

from __future__ import annotations

import pytest

from tests.cases.round_trip.compare import outcome
from tests.cases.round_trip.files import a_file

_FILES, _SEED = 120, 0


@pytest.mark.parametrize("first", range(0, _FILES, 20))
def test_random_files_are_published_as_written_or_rejected_for_a_correct_reason(first: int) -> None:
    for number in range(first, first + 20):
        written, rows_per_partition = a_file(_SEED, number)
        ended, details = outcome(written, rows_per_partition)
        assert ended != "wrong", f"seed {_SEED}, file {number}: {details}"
