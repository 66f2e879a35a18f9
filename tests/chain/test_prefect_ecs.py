"""Manual runs on AWS: a worker of type ecs takes them, and starts a task of the stack for each."""

from __future__ import annotations

import pytest

from deployment.local.pipeline import STACK_NAME, WORK_POOL, settings_of
from deployment.prefect_setup.work_pools import ECS_POOL
from flows.pipeline.receipt import Status
from tests.chain.chain import Chain
from tests.chain.files import good_orders

pytestmark = pytest.mark.cloud


def test_a_run_of_the_ecs_pool_is_a_task_of_the_stacks_own_definition(chain: Chain) -> None:
    """The worker starts a task with the run's command and registers no other task definition."""
    settings = settings_of(chain.outputs)
    definitions = chain.ecs.list_task_definitions()["taskDefinitionArns"]
    upload = chain.upload("incoming/orders/by-ecs.csv", good_orders(3))
    chain.ended(upload)
    chain.cloud.run(
        ["python", "-m", "deployment.prefect_setup.work_pools", "ecs", "--stack", STACK_NAME], timeout_seconds=300
    )
    try:
        _deploy(chain, settings | {"SLUICE_WORK_POOL": ECS_POOL})
        scheduled = chain.schedule(key=upload.key, version_id=upload.version_id, force=True)
        chain.cloud.run(
            ["prefect", "worker", "start", "--pool", ECS_POOL, "--type", "ecs", "--run-once"],
            timeout_seconds=300,
            environment=settings,
        )
        run = chain.wait_for(lambda: chain.final(scheduled), "the run on ECS to end", 90)
    finally:
        _deploy(chain, settings | {"SLUICE_WORK_POOL": WORK_POOL})
    assert run["state"]["name"] == "Published", run["state"]
    assert ":task/" in run["infrastructure_pid"]
    receipt = chain.receipt(upload)
    assert (receipt.status, receipt.attempt) == (Status.PUBLISHED, 1)
    assert receipt.chain.flow_run_id == run["id"]
    assert chain.ecs.list_task_definitions()["taskDefinitionArns"] == definitions


def _deploy(chain: Chain, settings: dict[str, str]) -> None:
    chain.cloud.run(["prefect", "--no-prompt", "deploy", "--all"], timeout_seconds=300, environment=settings)
