"""Registers a stack in Prefect, and removes its registration."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from prefect.cli import app
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.exceptions import ObjectNotFound
from prefect_aws import AwsCredentials

from blocks.aws import client_of
from blocks.object_store import ObjectStore
from blocks.prefect_names import PrefectNames
from blocks.settings import CONTRACTS, PipelineSettings, SettingsMissing
from blocks.settings_block import PipelineSettingsBlock, credentials_of_stack
from deployment import PROJECT_ROOT
from deployment.aws.stack import find_stack, outputs_of
from deployment.environment_variables import RECONCILE_CREDENTIALS
from deployment.prefect_setup import automations
from deployment.prefect_setup.blocks import blocks_of, leave_out_icon
from deployment.prefect_setup.work_pools import ECS, KINDS, LOCAL, work_pool
from flows.pipeline.published_contracts import LiveContracts, live_datasets
from flows.refinery.contract.loading import Contracts
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TransientError

FLOWS = ("process-upload", "reconcile", "explain-crash")
"""The flows for which prefect.yaml declares a deployment."""

_CODE_IN_IMAGE = "/app"
_PAGE = 200


class DeploymentsRefused(TransientError):
    """`prefect deploy --all` failed; its output contains the reason."""


def register(stack: str, pool: str) -> Iterator[str]:
    """Register a deployed stack in Prefect, or update its registration; yield a message for each registered object.

    Args:
        pool: the type of work pool for runs that a user starts, which is `local` or `ecs`.

    Raises:
        SettingsMissing: the stack does not exist, or lacks outputs that this release needs.
        ContractInvalid, AutomationsInvalid: a contract or automations.yaml is invalid.
        DeploymentsRefused: the deployments could not be created.
    """
    deployed = find_stack(client_of("cloudformation"), stack)
    if deployed is None:
        raise SettingsMissing(f"there is no stack {stack} in this account and region")
    names, outputs = PrefectNames(stack), outputs_of(deployed)
    settings = PipelineSettings.from_outputs(outputs)
    store = ObjectStore(settings.landing_bucket, settings.published_bucket)
    Contracts.load(CONTRACTS)  # raises if a contract is invalid; otherwise its deadline and limit would be removed
    contracts = LiveContracts(CONTRACTS, store).read()
    for dataset in live_datasets(store):
        yield f"contract {dataset}: the published contract applies, not the one in the image"
    with get_client(sync_client=True) as client:
        client.create_work_pool(work_pool(names, pool, outputs), overwrite=True)
    yield f"work pool {names.pool(pool)}"
    for name, block in blocks_of(names, outputs, os.environ, credentials_of_stack(stack)).items():
        block.save(name, overwrite=True)
        yield f"block {block.get_block_type_slug()}/{name}"
    if pool == LOCAL:
        leave_out_icon(AwsCredentials)
    # A value in the environment takes precedence, because ECS tasks of a local cloud run the code in this folder.
    os.environ.setdefault("SLUICE_CODE_DIRECTORY", _CODE_IN_IMAGE if pool == ECS else str(PROJECT_ROOT))
    os.environ.update(
        SLUICE_STACK=stack,
        SLUICE_WORK_POOL=names.pool(pool),
        SLUICE_RECONCILE_ROLE_ARN=outputs["ReconcileRoleArn"],
    )
    _deploy_all()
    if uri := os.environ.get(RECONCILE_CREDENTIALS):
        _reconcile_with_credentials_from(uri, names)
    yield from apply_limits(names, contracts)
    percent = os.environ.get(automations.QUARANTINED_PERCENT, "10")
    entries = automations.declared(names, automations.deadlines_of(contracts), quarantined_percent=percent)
    yield from automations.apply(names, entries, dropped=automations.without_deadline(names, contracts))


def follow_contract(stack: str, contract: Contract) -> Iterator[str]:
    """Update the deadline and the concurrency limit in Prefect to those in a contract; yield a message for each updated
    object."""
    names, dataset, limit = PrefectNames(stack), contract.dataset, contract.max_concurrent_uploads
    entries = automations.of_deadlines(names, automations.deadlines_of([contract]))
    yield from automations.apply(names, entries, dropped=automations.without_deadline(names, [contract]))
    with get_client(sync_client=True) as client:
        if limit:
            client.upsert_global_concurrency_limit_by_name(names.limit(dataset), limit)
        elif names.limit(dataset) in _limits(client, names):
            client.delete_global_concurrency_limit_by_name(names.limit(dataset))
    yield f"concurrency limit of {dataset}: {limit or 'none'}"


def remove(stack: str) -> Iterator[str]:
    """Remove everything from Prefect that `register` created for a stack; yield a message for each object. Flow runs
    are kept."""
    with get_client(sync_client=True) as client:
        for what, delete in list(_registered(client, PrefectNames(stack))):
            with suppress(ObjectNotFound):
                delete()
            yield f"removed: {what}"


def apply_limits(names: PrefectNames, contracts: Iterable[Contract]) -> Iterator[str]:
    """Set the concurrency limits that the contracts declare, and delete the stack's other limits; yield a message for
    each. Runs that hold slots of a changed limit keep them."""
    wanted = {names.limit(one.dataset): one.max_concurrent_uploads for one in contracts if one.max_concurrent_uploads}
    with get_client(sync_client=True) as client:
        for name in _limits(client, names):
            if name not in wanted:
                client.delete_global_concurrency_limit_by_name(name)
                yield f"removed: concurrency limit {name}"
        for name, limit in wanted.items():
            client.upsert_global_concurrency_limit_by_name(name, limit)
            yield f"concurrency limit {name}: {limit}"


def _deploy_all() -> None:
    """Run `prefect deploy --all` in this process, because starting another process takes seconds."""
    sys.argv = ["prefect", "--no-prompt", "deploy", "--all"]
    try:
        app()
    except SystemExit as end:
        if end.code:
            raise DeploymentsRefused(f"prefect deploy --all failed with exit code {end.code}") from None


def _reconcile_with_credentials_from(uri: str, names: PrefectNames) -> None:
    """Make local runs of reconcile use the credentials of ReconcileRole instead of those in the worker's
    environment."""
    with get_client(sync_client=True) as client:
        deployed = client.read_deployment_by_name(names.deployment("reconcile"))
        variables = {**deployed.job_variables, "env": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": uri}}
        client.update_deployment(deployed.id, DeploymentUpdate(job_variables=variables))


def _registered(client: SyncPrefectClient, names: PrefectNames) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the name of each of the stack's objects in Prefect with a function that deletes it. Automations come first,
    because they start runs."""
    for name, automation_id in automations.present(client, names).items():
        yield f"automation {name}", partial(client.delete_automation, automation_id)
    for deployment in map(names.deployment, FLOWS):
        with suppress(ObjectNotFound):
            found = client.read_deployment_by_name(deployment)
            yield f"deployment {deployment}", partial(client.delete_deployment, found.id)
    for pool in map(names.pool, KINDS):
        with suppress(ObjectNotFound):
            yield f"work pool {client.read_work_pool(pool).name}", partial(client.delete_work_pool, pool)
    for limit in _limits(client, names):
        yield f"concurrency limit {limit}", partial(client.delete_global_concurrency_limit_by_name, limit)
    settings = PipelineSettingsBlock.get_block_type_slug()
    for block in automations.blocks_named(client, names.settings_block, names.credentials_block, names.notify_block):
        kind = block["block_type"]["slug"]
        if block["name"] != names.settings_block or kind == settings:  # other block types may use the same name
            yield f"block {kind}/{block['name']}", partial(client.delete_block_document, block["id"])


def _limits(client: SyncPrefectClient, names: PrefectNames) -> list[str]:
    found: list[str] = []
    while page := client.read_global_concurrency_limits(limit=_PAGE, offset=len(found)):
        found += [limit.name for limit in page]
    return [name for name in found if name.startswith(names.limit(""))]
