"""Tests that the role for contracts can publish a contract and roll it back without a new image, and that no other role
can."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from deployment.aws.access import Access, own_session
from deployment.commands.contract_publish import publish, rollback, show
from deployment.deployed_stack import AwsStack, find_aws_stack
from deployment.local.pipeline import STACK_NAME
from flows.pipeline.published_contracts import LIVE, LOOK_SECONDS, USED
from flows.pipeline.receipt import Receipt, Status
from flows.refinery.contract.loading import load_contract
from tests.chain.chain import Chain
from tests.chain.files import good_orders
from tests.chain.test_roles import s3_as

pytestmark = pytest.mark.cloud
FILE = b"weight\n1\n2\n300\n"
CONTRACT = """
dataset: parcels
columns: {weight: integer}
expectations:
  - expect_column_values_to_be_between: {column: weight, max_value: HEAVIEST}
"""


@contextmanager
def as_publisher(chain: Chain) -> Iterator[AwsStack]:
    """Yield the stack as it is visible to a person who has assumed the role for publishing contracts."""
    endpoints = chain.cloud.endpoints
    with own_session(endpoints.environment_of(chain.outputs["ContractPublisherRoleArn"])):
        access = Access("000000000000", endpoints.region, "publisher", endpoints.aws_endpoint_url)
        yield find_aws_stack(access, STACK_NAME)


def judged(chain: Chain, name: str) -> Receipt:
    return chain.done(chain.upload(f"incoming/parcels/{name}.csv", FILE))


def test_a_contract_is_published_and_rolled_back_for_tasks_without_a_deployment(chain: Chain, tmp_path: Path) -> None:
    folder, console, hashes = tmp_path / "parcels", Console(file=io.StringIO()), {}
    folder.mkdir()
    with as_publisher(chain) as stack:
        for heaviest in (100, 1_000):
            (folder / "contract.yaml").write_text(CONTRACT.replace("HEAVIEST", str(heaviest)))
            assert publish(console, stack, load_contract(folder), lambda _: True)
            receipt = _judged_by_it(chain, heaviest)
            hashes[heaviest] = receipt.contract.content_hash
            output = io.StringIO()
            show(Console(file=output), stack, "parcels", receipt.contract.content_hash, None)
            assert f"max_value: {heaviest}" in output.getvalue()
        assert rollback(console, stack, "parcels", lambda _: True)
        assert _judged_by_it(chain, 100).contract.content_hash == hashes[100]
        assert rollback(console, stack, "parcels", lambda _: True)
    chain.wait_for(lambda: judged(chain, "image").contract.is_default, "the image's contract", 2 * LOOK_SECONDS)


def _judged_by_it(chain: Chain, heaviest: int) -> Receipt:
    """Upload files until one is validated against the contract with this limit, and return its receipt. A running task
    checks for new contracts only once a minute."""
    quarantined = sum(weight > heaviest for weight in (1, 2, 300))

    def judged_so() -> Receipt | None:
        receipt = judged(chain, str(heaviest))
        as_wanted = receipt.contract.dataset == "parcels" and receipt.rows.quarantined_total == quarantined
        return receipt if as_wanted and receipt.status is Status.PUBLISHED else None

    return chain.wait_for(judged_so, f"a file to be judged with at most {heaviest}", 2 * LOOK_SECONDS)


def test_a_wrong_contract_in_the_image_stops_only_its_own_dataset_until_it_is_corrected(
    chain: Chain, tmp_path: Path
) -> None:
    folder = chain.copy_contracts(tmp_path / "contracts")
    (folder / "parcels").mkdir()
    contract = folder / "parcels" / "contract.yaml"
    contract.write_text("dataset: parcels\ncolumns: {weight: kilograms}\n")
    with chain.tasks_that(environment={"SLUICE_CONTRACTS_FOLDER": str(folder)}):
        stopped = chain.upload("incoming/parcels/stopped.csv", FILE)
        orders = chain.done(chain.upload("incoming/orders/beside-a-wrong-contract.csv", good_orders(3)))
        other = chain.done(chain.upload("incoming/unknown/beside-a-wrong-contract.csv", FILE))
        attempt = chain.wait_for(lambda: chain.attempt(stopped), "the file of the wrong contract to be tried")
        contract.write_text("dataset: parcels\ncolumns: {weight: integer}\n")
        corrected = chain.done(stopped, 180)  # after its message was delivered again
        chain.settle()
    assert [each.status for each in (orders, other, corrected)] == [Status.PUBLISHED] * 3
    assert [each.contract.dataset for each in (orders, other, corrected)] == ["orders", "default", "parcels"]
    assert (attempt.error, attempt.given_up) == ("ContractUnusable", False)
    assert "contract.yaml:2: columns.weight" in attempt.message


@pytest.mark.parametrize("key", [f"{LIVE}forged.yaml", f"{USED}orders/forged.yaml", "receipts/forged.json"])
def test_tasks_publish_no_contract_and_publishers_write_nothing_else(chain: Chain, key: str) -> None:
    role = chain.outputs["TaskRoleArn" if key.startswith(LIVE) else "ContractPublisherRoleArn"]
    bucket = chain.outputs["PublishedBucket"]
    with pytest.raises(ClientError) as caught:
        s3_as(chain, role).put_object(Bucket=bucket, Key=key, Body=b"dataset: orders\n")
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


def test_a_task_can_store_a_used_contract_but_not_replace_it(chain: Chain) -> None:
    s3, place = s3_as(chain, chain.outputs["TaskRoleArn"]), {"Bucket": chain.outputs["PublishedBucket"]}
    place["Key"] = f"{USED}orders/kept.yaml"
    etag = s3.put_object(**place, Body=b"dataset: orders\n", IfNoneMatch="*")["ETag"]
    for condition in ({}, {"IfMatch": etag}):
        with pytest.raises(ClientError) as caught:
            s3.put_object(**place, Body=b"dataset: others\n", **condition)
        assert caught.value.response["Error"]["Code"] == "AccessDenied"
    chain.s3.delete_object(**place)
