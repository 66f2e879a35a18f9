"""Prefect automations are derived from automations.yaml and the deployments that exist on the server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from prefect.states import InfrastructurePending, Pending, Submitting

from blocks.prefect_names import PrefectNames
from deployment import PROJECT_ROOT
from deployment.prefect_setup.automations import AutomationsInvalid, PrefectInventory, deadlines_of, declared, resolved
from flows.observability.heartbeats import HEARTBEAT_SECONDS
from flows.refinery.contract.model import Contract

DEPLOYMENT_ID = "00000000-0000-4000-8000-000000000000"
TRIAL = PrefectNames("trial")


def test_the_automations_of_a_stack_are_recognised_by_name() -> None:
    names = [entry["name"] for entry in declared(TRIAL, {"orders": 1, "parcels": 2})]
    assert len(set(names)) == len(names) >= 7
    assert all(TRIAL.has_automation(name) for name in names)


def test_every_automation_matches_only_events_or_runs_of_its_stack() -> None:
    of_stack = {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.stack:trial"}
    for entry in declared(TRIAL, {"orders": 1}):
        trigger = entry["trigger"]
        assert trigger["match"].get("sluice.stack") == "trial" or of_stack in trigger["match_related"], entry["name"]


def test_a_contract_with_a_deadline_has_an_automation_and_one_without_does_not() -> None:
    deadlines = deadlines_of([Contract(dataset="daily", expected_every_hours=26), Contract(dataset="whenever")])
    assert deadlines == {"daily": 26}
    (entry,) = (entry for entry in declared(TRIAL, deadlines) if "daily" in entry["name"])
    assert entry["trigger"]["within"] == 26 * 3_600
    assert entry["trigger"]["match"]["sluice.dataset"] == "daily"


def test_an_action_whose_block_is_missing_is_left_out_and_so_is_an_automation_without_actions() -> None:
    """On a server without the notification block, crashes are still explained."""
    inventory = PrefectInventory(deployments={"explain-crash/trial": DEPLOYMENT_ID})
    by_name = {entry["name"]: entry for entry in declared(TRIAL)}
    crashed, missing = resolved(inventory, by_name["Sluice: a run crashed (trial)"])
    assert missing == ["sluice-trial-notify"]
    assert crashed is not None
    assert [action.type for action in crashed.actions] == ["run-deployment"]
    assert resolved(inventory, by_name["Sluice: a file was rejected (trial)"]) == (None, ["sluice-trial-notify"])


def test_an_automation_that_prefect_does_not_accept_is_named_with_its_field() -> None:
    entry = {"name": "odd", "trigger": {"type": "event", "posture": "Sideways"}, "actions": [{"type": "do-nothing"}]}
    with pytest.raises(AutomationsInvalid) as refused:
        resolved(PrefectInventory(), entry)
    assert refused.value.name == "odd"
    assert (refused.value.fields[0], refused.value.fields[-1]) == ("trigger", "posture")


@pytest.mark.parametrize("text", ["a: mapping", "- no name"])
def test_a_file_that_is_not_a_list_of_named_automations_is_rejected(tmp_path: Path, text: str) -> None:
    file = tmp_path / "automations.yaml"
    file.write_text(text)
    with pytest.raises(AutomationsInvalid) as refused:
        declared(TRIAL, path=file)
    assert refused.value.name == ""


def test_a_dead_run_is_set_to_crashed_within_the_documented_time() -> None:
    """docs/prefect.md promises 130 seconds: the 30 until the next heartbeat is due, and 100 in which none arrives."""
    entry = next(entry for entry in declared(TRIAL) if "heartbeat" in entry["name"])
    assert HEARTBEAT_SECONDS + entry["trigger"]["within"] == 130
    assert "within 130 seconds" in (PROJECT_ROOT / "docs" / "prefect.md").read_text()


def test_a_run_that_never_begins_is_set_to_crashed_within_the_documented_time() -> None:
    """The time begins with each state that Prefect sets before Running, in prefect.workers.base and
    prefect_aws.observers.ecs.
    """
    entry = next(entry for entry in declared(TRIAL) if "did not begin" in entry["name"])
    assert {name.rpartition(".")[2] for name in entry["trigger"]["after"]} == {
        state().name for state in (Pending, Submitting, InfrastructurePending)
    }
    assert entry["trigger"]["within"] == 15 * 60
    assert "never started | within 15 minutes" in (PROJECT_ROOT / "docs" / "prefect.md").read_text()
    assert resolved(PrefectInventory(), entry)[0] is not None


@pytest.mark.parametrize(
    ("share", "matched"), [("10", range(10, 101)), ("1", range(1, 101)), ("100", [100]), ("0", [101])]
)
def test_a_share_of_quarantined_rows_matches_shares_that_are_no_smaller_and_zero_matches_nothing(
    share: str, matched: Iterable[int]
) -> None:
    (entry,) = (one for one in declared(TRIAL, quarantined_percent=share) if "quarantine" in one["name"])
    assert entry["trigger"]["match"]["sluice.quarantined-percent"] == [str(percent) for percent in matched]


@pytest.mark.parametrize("share", ["101", "-1", "10 %", "0.1", ""])
def test_an_invalid_share_is_rejected(share: str) -> None:
    with pytest.raises(AutomationsInvalid):
        declared(TRIAL, quarantined_percent=share)
