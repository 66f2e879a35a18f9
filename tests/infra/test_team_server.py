"""Tests with a Prefect server for a team, with PostgreSQL and a password, as described in docs/prefect-server.md."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deployment.aws.deploy_stack import Clients, deploy_stack
from deployment.local.pipeline import AUTH_SECRET, STACK_NAME
from deployment.local.prefect_server import ServerOptions
from flows.pipeline.receipt import Status
from tests.chain.chain import Chain, running_chain
from tests.chain.files import dirty_orders, good_orders
from tests.infra.postgresql import programs, running_postgresql

pytestmark = [
    pytest.mark.cloud,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: apt-get install postgresql)"),
]

PASSWORD = f"team:{secrets.token_hex(16)}"
WRONG_PASSWORD = f"team:{secrets.token_hex(16)}"


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """Start a pipeline whose Prefect server uses PostgreSQL and requires a password. Every process is a new
    interpreter, as it is for a user."""
    with running_postgresql() as database:
        options = ServerOptions(database_url=database.url, auth_string=PASSWORD)
        with running_chain(prefect_options=options, warm=False) as started:
            yield started


def task_log(chain: Chain) -> list[dict[str, Any]]:
    return chain.log_lines("TaskLogGroup")


def test_an_upload_is_reported_to_a_server_on_postgresql_with_a_password(chain: Chain) -> None:
    upload = chain.upload("incoming/orders/monday.csv", dirty_orders())
    assert chain.done(upload).status is Status.PUBLISHED
    receipt = chain.receipt(upload)
    assert receipt.observed
    (flow_run,) = chain.flow_runs(upload)
    ended = chain.wait_for(lambda: chain.final(flow_run["id"]), "the flow run's end, which follows the receipt")
    assert ended["state"]["name"] == "Completed"
    of_run = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
    tasks = chain.ask_prefect("task_runs", **of_run)
    assert {task["name"] for task in tasks} == {"fetch", "refine", "publish", "record"}
    artifacts = chain.ask_prefect("artifacts", **of_run)
    assert {artifact["key"] for artifact in artifacts} >= {"summary-orders"}


def test_a_run_by_hand_works_behind_a_password(chain: Chain) -> None:
    run = chain.run_by_hand(key="incoming/orders/monday.csv", force=True)
    assert run["state"]["name"] == "Completed"


@pytest.mark.parametrize("auth_string", ["", WRONG_PASSWORD], ids=["none", "wrong"])
def test_the_api_rejects_requests_without_the_password(chain: Chain, auth_string: str) -> None:
    auth = httpx.BasicAuth(*auth_string.split(":")) if auth_string else None
    answer = httpx.post(f"{chain.cloud.endpoints.prefect_api_url}/flow_runs/filter", json={}, auth=auth, timeout=30)
    assert answer.status_code == 401
    assert httpx.get(f"{chain.cloud.endpoints.prefect_api_url}/health", timeout=30).is_success


@pytest.mark.parametrize("auth_string", [WRONG_PASSWORD, ""], ids=["wrong", "none"])
def test_a_task_without_the_right_password_still_publishes_and_logs_the_reason(chain: Chain, auth_string: str) -> None:
    # Wait for running tasks to end, because they have already used the current password.
    chain.settle()
    if auth_string:
        chain.cloud.client("secretsmanager").put_secret_value(SecretId=AUTH_SECRET, SecretString=auth_string)
    else:
        cloud = chain.cloud
        deploy_stack(
            Clients.made_by(cloud.client),
            stack_name=STACK_NAME,
            parameters={"PrefectAuthStringSecretArn": ""},
        )
    seen = len(task_log(chain))
    upload = chain.upload(f"incoming/orders/unobserved-{len(auth_string)}.csv", good_orders(3))
    assert chain.done(upload).status is Status.PUBLISHED
    receipt = chain.receipt(upload)
    assert not receipt.observed
    assert chain.flow_runs(upload) == []
    lines = task_log(chain)[seen:]
    reasons = {line["why"] for line in lines if line.get("event") == "continuing without Prefect"}
    (reason,) = reasons
    assert "401" in reason
    assert "PREFECT_API_AUTH_STRING" in reason
    assert WRONG_PASSWORD.split(":")[1] not in str(lines)
    assert PASSWORD.split(":")[1] not in str(lines)
