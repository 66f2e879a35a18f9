"""Files with random content are published with exactly the values that were written, or rejected with a true reason."""

from __future__ import annotations

import pytest

from tests.cases.round_trip.compare import outcome
from tests.cases.round_trip.files import a_file

_FILES, _SEED = 120, 0


@pytest.mark.parametrize("first", range(0, _FILES, 20))
def test_what_is_published_of_random_files_is_what_was_written(first: int) -> None:
    for number in range(first, first + 20):
        written, rows_per_partition = a_file(_SEED, number)
        ended, details = outcome(written, rows_per_partition)
        assert ended != "wrong", f"seed {_SEED}, file {number}: {details}"
