"""Which automations there are follows from files under version control."""

from __future__ import annotations

from deployment.automations import deadlines_of, declared
from flows.refinery.contract.model import Contract


def test_every_declared_automation_has_a_name_of_its_own() -> None:
    names = [entry["name"] for entry in declared()]
    assert len(set(names)) == len(names) >= 3


def test_a_contract_with_a_deadline_asks_for_an_automation_and_one_without_does_not() -> None:
    daily = Contract(dataset="daily", expected_every_hours=26)
    assert deadlines_of([daily, Contract(dataset="whenever")]) == {"daily": 26}
