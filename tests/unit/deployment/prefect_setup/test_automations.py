"""Which automations there are follows from files under version control."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.states import InfrastructurePending, Pending, Submitting

from deployment import PROJECT_ROOT
from deployment.prefect_setup.automations import AutomationsInvalid, There, deadlines_of, declared, resolved
from flows.observability.display import HEARTBEAT_SECONDS
from flows.refinery.contract.model import Contract

DEPLOYMENT_ID = "00000000-0000-4000-8000-000000000000"


def test_every_declared_automation_has_a_name_of_its_own() -> None:
    names = [entry["name"] for entry in declared()]
    assert len(set(names)) == len(names) >= 3


def test_a_contract_with_a_deadline_asks_for_an_automation_and_one_without_does_not() -> None:
    daily = Contract(dataset="daily", expected_every_hours=26)
    assert deadlines_of([daily, Contract(dataset="whenever")]) == {"daily": 26}


def test_what_names_nothing_is_left_out_and_an_automation_without_any_action_is() -> None:
    """A server without the notification block still explains crashes."""
    there = There(deployments={"explain-crash/explain-crash": DEPLOYMENT_ID})
    by_name = {entry["name"]: entry for entry in declared()}
    crashed, missing = resolved(there, by_name["Sluice: a run crashed"])
    assert missing == ["sluice-notify"]
    assert crashed is not None
    assert [action.type for action in crashed.actions] == ["run-deployment"]
    assert resolved(there, by_name["Sluice: a file was rejected"]) == (None, ["sluice-notify"])


def test_a_wrong_automation_is_named_with_its_field() -> None:
    entry = {"name": "odd", "trigger": {"type": "event", "posture": "Sideways"}, "actions": [{"type": "do-nothing"}]}
    with pytest.raises(AutomationsInvalid, match=r"'odd': trigger.*posture"):
        resolved(There(), entry)


@pytest.mark.parametrize("text", ["a: mapping", "- no name"])
def test_a_file_that_is_no_list_of_named_automations_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "automations.yaml"
    file.write_text(text)
    with pytest.raises(AutomationsInvalid, match="a list of automations, each with a name"):
        declared(file)


def test_a_dead_run_is_called_crashed_within_the_stated_time() -> None:
    """docs/prefect.md states 130 seconds: a sign of life every 30, and 100 without one."""
    entry = next(entry for entry in declared() if "sign of life" in entry["name"])
    assert HEARTBEAT_SECONDS + entry["trigger"]["within"] == 130
    assert "within 130 seconds" in (PROJECT_ROOT / "docs" / "prefect.md").read_text()


def test_a_run_that_never_begins_is_called_crashed_within_the_stated_time() -> None:
    """From each state that a worker proposes before Running: prefect.workers.base, prefect_aws.observers.ecs."""
    entry = next(entry for entry in declared() if "did not begin" in entry["name"])
    assert {name.rpartition(".")[2] for name in entry["trigger"]["after"]} == {
        state().name for state in (Pending, Submitting, InfrastructurePending)
    }
    assert entry["trigger"]["within"] == 15 * 60
    assert "never began | within 15 minutes" in (PROJECT_ROOT / "docs" / "prefect.md").read_text()
    assert resolved(There(), entry)[0] is not None
