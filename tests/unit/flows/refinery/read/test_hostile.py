"""Hostile files are read or rejected within a limit on memory."""

from __future__ import annotations

import pytest

from tests.cases.hostile import FILES


@pytest.mark.heavy
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_has_an_allowed_result_within_its_memory_limit(name: str) -> None:
    assert FILES[name].ending() in FILES[name].ends
