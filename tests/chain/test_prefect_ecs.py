"""Tests manual runs with a Prefect worker of type ecs, as on AWS: each run is a task of the stack's task definition."""

from __future__ import annotations

import pytest

from deployment import PROJECT_ROOT
from deployment.local.pipeline import STACK_NAME
from flows.pipeline.receipt import Status
from tests.chain.chain import NAMES, Chain
from tests.chain.files import good_orders

pytestmark = pytest.mark.cloud


def test_a_run_of_the_ecs_pool_is_a_task_of_the_stacks_own_definition(chain: Chain) -> None:
    """The worker asks ECS for a task with the run's command, and creates no other task definition."""
    definitions = chain.ecs.list_task_definitions()["taskDefinitionArns"]
    upload = chain.upload("incoming/orders/by-ecs.csv", good_orders(3))
    chain.done(upload)
    try:
        _register(chain, "ecs")
        scheduled = chain.schedule(key=upload.key, version_id=upload.version_id, force=True)
        chain.cloud.run(
            ["prefect", "worker", "start", "--pool", NAMES.pool("ecs"), "--type", "ecs", "--run-once"],
            timeout_seconds=300,
        )
        run = chain.wait_for(lambda: chain.final(scheduled), "the run on ECS to end", 90)
    finally:
        _register(chain, "local")
    assert run["state"]["name"] == "Completed", run["state"]
    assert ":task/" in run["infrastructure_pid"]
    receipt = chain.receipt(upload)
    assert (receipt.status, receipt.attempt) == (Status.PUBLISHED, 1)
    assert receipt.chain.flow_run_id == run["id"]
    assert chain.ecs.list_task_definitions()["taskDefinitionArns"] == definitions


def _register(chain: Chain, pool: str) -> None:
    command = ["python", "-m", "deployment.prefect_setup", "register", STACK_NAME, "--pool", pool]
    chain.cloud.run(command, timeout_seconds=300, environment={"SLUICE_CODE_DIRECTORY": str(PROJECT_ROOT)})
