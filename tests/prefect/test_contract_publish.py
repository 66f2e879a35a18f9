"""Tests that publishing a contract updates its deadline and its limit in Prefect."""

import io
from dataclasses import replace
from pathlib import Path

import httpx
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from rich.console import Console

from blocks.prefect_names import PrefectNames
from deployment.commands.contract_publish import publish, rollback
from deployment.deployed_stack import AwsStack
from deployment.prefect_setup.blocks import notification_block
from tests.prefect_server import PrefectServer
from tests.unit.deployment.commands.test_contract_publish import contract, stack, yes

__all__ = ["stack"]

NAMES = PrefectNames("sluice")


def test_deadline_and_limit_in_prefect_follow_contracts_that_are_published_and_rolled_back(
    stack: AwsStack, tmp_path: Path, server: PrefectServer
) -> None:
    block = notification_block(NAMES.notify_block, "http://127.0.0.1:9/")
    assert isinstance(block, CustomWebhookNotificationBlock)
    block.save(NAMES.notify_block, overwrite=True)  # without the block, Prefect cannot send notifications
    console, here = Console(file=io.StringIO()), replace(stack, parameters={"PrefectApiUrl": server.url})
    deadlines: list[float] = []
    for more in ("", "expected_every_hours: 26\nmax_concurrent_uploads: 2\n", "expected_every_hours: 5\n"):
        publish(console, here, contract(tmp_path, more, "parcels"), yes)
        deadlines.append(_deadline_hours(server))
    rollback(console, here, "parcels", yes)
    assert (_deadline_hours(server), _limits(server)) == (26, {NAMES.limit("parcels"): 2})
    rollback(console, here, "parcels", yes)
    assert [*deadlines, _deadline_hours(server)] == [0, 26, 5, 0]
    assert _limits(server) == {}


def _deadline_hours(server: PrefectServer) -> float:
    found = httpx.post(f"{server.url}/automations/filter", json={"limit": 200}).json()
    within = [one["trigger"]["within"] for one in found if "parcels" in one["name"]]
    return float(sum(within)) / 3_600


def _limits(server: PrefectServer) -> dict[str, int]:
    found = httpx.post(f"{server.url}/v2/concurrency_limits/filter", json={}).json()
    return {one["name"]: one["limit"] for one in found if "parcels" in one["name"]}
