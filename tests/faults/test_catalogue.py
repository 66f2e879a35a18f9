"""Tests that the page of faults matches the tests."""

from __future__ import annotations

from tests.faults.catalogue import PAGE, faults, page


def test_the_page_of_faults_is_current() -> None:
    assert PAGE.read_text() == page(), "python -m tests.faults.catalogue > docs/faults.md"


def test_no_fault_is_named_twice() -> None:
    named = [(each.area, each.what) for each in faults()]
    assert len(named) == len(set(named))
