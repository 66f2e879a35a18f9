"""Tests of two stacks that share one Prefect server. Each has separate deployments, blocks, automations and limits, and
a separate work pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from blocks.prefect_names import PrefectNames
from deployment.local.pipeline import settings_of
from deployment.project_commands import run_command
from flows.refinery.contract.model import Contract
from tests.chain.chain import Chain
from tests.chain.files import good_orders
from tests.forking import forking

pytestmark = [pytest.mark.cloud, pytest.mark.usefixtures("worker")]
TRIAL = PrefectNames("trial")

# The part of a stack that a manual run needs.
TEMPLATE = {
    "Resources": {
        "Landing": {
            "Type": "AWS::S3::Bucket",
            "Properties": {"VersioningConfiguration": {"Status": "Enabled"}},
        },
        "Published": {"Type": "AWS::S3::Bucket"},
    },
    "Outputs": {
        name: {"Value": value}
        for name, value in {
            "StackName": {"Ref": "AWS::StackName"},
            "LandingBucket": {"Ref": "Landing"},
            "PublishedBucket": {"Ref": "Published"},
            "QueueUrl": "https://sqs.example/trial",
            "DeadLetterQueueUrl": "https://sqs.example/trial-dead",
            "WindowSeconds": "60",
            "IncomingPrefix": "incoming/",
            "IgnoredNames": "_*",
            "StateMachineArn": "arn:aws:states:eu-central-1:000000000000:stateMachine:trial",
            "ReconcileRoleArn": "arn:aws:iam::000000000000:role/trial",
        }.items()
    },
}


@pytest.fixture
def trial(chain: Chain) -> Iterator[dict[str, str]]:
    """Create a second stack next to the first one without registering it in Prefect, and yield its outputs."""
    cloudformation = chain.cloud.client("cloudformation")
    cloudformation.create_stack(StackName=TRIAL.stack, TemplateBody=json.dumps(TEMPLATE))
    cloudformation.get_waiter("stack_create_complete").wait(StackName=TRIAL.stack, WaiterConfig={"Delay": 1})
    (stack,) = cloudformation.describe_stacks(StackName=TRIAL.stack)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    yield outputs
    _setup(chain, "remove", TRIAL.stack)
    for bucket in (outputs["LandingBucket"], outputs["PublishedBucket"]):
        _empty(chain, bucket)
    cloudformation.delete_stack(StackName=TRIAL.stack)


def test_registering_and_removing_a_second_stack_changes_nothing_of_the_first(
    chain: Chain, trial: dict[str, str]
) -> None:
    chain.apply_limits([Contract(dataset="orders", max_concurrent_uploads=3)])
    first = registered(chain)
    _setup(chain, "register", TRIAL.stack, "--pool", "local")
    chain.apply_limits([Contract(dataset="orders", max_concurrent_uploads=3)], TRIAL)
    both = registered(chain)
    assert {name: both.get(name) for name in first} == first
    kinds = ("deployment", "block", "work pool", "automation", "limit")
    assert {kind for kind, _ in both.keys() - first.keys()} == set(kinds)
    assert "removed: deployment process-upload/trial" in _setup(chain, "remove", TRIAL.stack)
    assert registered(chain) == first
    assert "removed" not in _setup(chain, "remove", TRIAL.stack), "removing it again changes nothing"
    chain.apply_limits([])


def test_a_manual_run_works_on_its_own_stack_whatever_its_workers_environment_contains(
    chain: Chain, trial: dict[str, str]
) -> None:
    """The worker has the first stack's settings and no AWS credentials. The file is in the second stack's bucket."""
    _setup(chain, "register", TRIAL.stack, "--pool", "local")
    give_keys(chain)
    key = "incoming/orders/trial.csv"
    chain.s3.put_object(Bucket=trial["LandingBucket"], Key=key, Body=good_orders(3))
    of_trial = chain.schedule(deployment=TRIAL.deployment("process-upload"), key=key, dry_run=True)
    environment = chain.cloud.endpoints.environment | settings_of(chain.outputs)
    without_aws = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
    with forking():
        run_once = ["prefect", "worker", "start", "--pool", TRIAL.pool("local"), "--run-once"]
        run_command(run_once, without_aws, timeout_seconds=300)
    run = chain.wait_for(lambda: chain.final(of_trial), "the second stack's run to end", 90)
    assert run["state"]["name"] == "Completed", run["state"]
    # The first stack's worker reads the first stack's bucket, which has no such file.
    of_first = chain.schedule(key=key, dry_run=True)
    run = chain.wait_for(lambda: chain.final(of_first), "the first stack's run to end", 90)
    assert run["state"]["name"] == "Failed", run["state"]
    assert chain.outputs["LandingBucket"] in run["state"]["message"]


def give_keys(chain: Chain) -> None:
    """Do what an operator does in the UI if a worker has no AWS credentials in its environment."""
    with temporary_settings({PREFECT_API_URL: chain.cloud.endpoints.prefect_api_url}):
        block = AwsCredentials.load(TRIAL.credentials_block)
        block.aws_access_key_id, block.aws_secret_access_key = "test", SecretStr("test")
        block.save(TRIAL.credentials_block, overwrite=True)


def registered(chain: Chain) -> dict[tuple[str, str], Any]:
    """Return everything that stacks have registered on the Prefect server, by type and name."""
    flows = {flow["id"]: flow["name"] for flow in chain.ask_prefect("flows")}
    blocks = chain.ask_prefect("block_documents", include_secrets=True)
    found = {
        **{("deployment", f"{flows[one['flow_id']]}/{one['name']}"): one for one in chain.ask_prefect("deployments")},
        **{("block", f"{one['block_type_name']}/{one['name']}"): one["data"] for one in blocks},
        **{("work pool", one["name"]): one["base_job_template"] for one in chain.ask_prefect("work_pools")},
        **{("automation", one["name"]): one for one in _automations(chain)},
        **{("limit", one["name"]): one["limit"] for one in chain.ask_prefect("v2/concurrency_limits")},
    }
    moving = ("updated", "status", "last_polled", "work_queue_id")
    return {
        name: {field: value for field, value in one.items() if field not in moving} if isinstance(one, dict) else one
        for name, one in found.items()
    }


def _automations(chain: Chain) -> list[dict[str, Any]]:
    return chain.ask_prefect("automations")


def _setup(chain: Chain, *arguments: str) -> str:
    return chain.cloud.run(["python", "-m", "deployment.prefect_setup", *arguments], timeout_seconds=300)


def _empty(chain: Chain, bucket: str) -> None:
    for page in chain.s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in page.get("Versions", []):
            chain.s3.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
