"""Files that expand to much more than their size, or claim to, are rejected by a reader with little memory."""

from __future__ import annotations

import pytest

from tests.cases.hostile import FILES


@pytest.mark.heavy
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_ends_well_with_little_memory(name: str) -> None:
    assert FILES[name].ending() in FILES[name].ends
