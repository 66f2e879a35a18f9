"""Tests that each of the shipped policies for people allows what it is for and nothing else, with IAM enforced."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from deployment.aws.access import own_session
from deployment.aws.deploy_stack import TEMPLATE
from deployment.local.pipeline import STACK_NAME
from flows.pipeline.receipt import Receipt
from tests import forking
from tests.chain.chain import Chain
from tests.chain.files import order, orders

pytestmark = pytest.mark.cloud
_ANYBODY = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
_EXIT_REFUSED = 3


@dataclass(frozen=True)
class Person:
    """A person who has some of the policies, and works with the stack as with one on AWS."""

    environment: dict[str, str]

    def sluice(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return forking.run(
            [sys.executable, "-m", "deployment.cli", *arguments, "--stack", STACK_NAME],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def may(self, call: str, **arguments: object) -> bool:
        """Return whether S3 allows the call."""
        with own_session(self.environment):
            s3 = boto3.client("s3")
            try:
                getattr(s3, call)(**arguments)
            except ClientError as error:
                if error.response["Error"]["Code"] != "AccessDenied":
                    raise
                return False
            return True


@pytest.fixture(scope="module")
def policies(chain: Chain) -> dict[str, str]:
    """Create the policies as docs/security.md describes, and return their ARNs by the audience of the policy, such as
    "reader"."""
    cloudformation = chain.cloud.client("cloudformation")
    given = {"LandingBucket": chain.outputs["LandingBucket"], "PublishedBucket": chain.outputs["PublishedBucket"]}
    given |= {"StackName": STACK_NAME, "UploadPrefix": "incoming/orders/", "Dataset": "orders"}
    cloudformation.create_stack(
        StackName="people",
        TemplateBody=TEMPLATE.with_name("people.yaml").read_text(encoding="utf-8"),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName="people", WaiterConfig={"Delay": 1})
    (stack,) = cloudformation.describe_stacks(StackName="people")["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    return {name.removesuffix("PolicyArn").lower(): arn for name, arn in outputs.items()}


@contextmanager
def somebody_with(chain: Chain, policies: dict[str, str], *names: str) -> Iterator[Person]:
    iam, role = chain.cloud.client("iam"), f"person-{'-'.join(names)}"
    document = json.dumps({"Version": "2012-10-17", "Statement": [_ANYBODY]})
    arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    for name in names:
        iam.attach_role_policy(RoleName=role, PolicyArn=policies[name])
    try:
        yield Person(chain.cloud.endpoints.environment_of(arn))
    finally:
        for name in names:
            iam.detach_role_policy(RoleName=role, PolicyArn=policies[name])
        iam.delete_role(RoleName=role)


@pytest.fixture(scope="module")
def dirty(chain: Chain) -> Receipt:
    """Publish a file with one row in quarantine, and return its receipt."""
    upload = chain.upload("incoming/orders/people.csv", orders(*map(order, range(1, 8)), order(8, unit_price="cheap")))
    receipt = chain.done(upload)
    chain.settle()
    assert receipt.rows.quarantined_total == 1
    return receipt


def test_a_reader_reads_rows_and_no_quarantine(chain: Chain, policies: dict[str, str], dirty: Receipt) -> None:
    landing, published = chain.outputs["LandingBucket"], chain.outputs["PublishedBucket"]
    (bad,) = (output.key for output in dirty.outputs if output.kind == "quarantine")
    with somebody_with(chain, policies, "reader") as reader:
        read = reader.sluice("read", "orders", "--run", dirty.run_id)
        assert (read.returncode, "7 of 7 rows published" in read.stdout) == (0, True), read.stdout
        refused = reader.sluice("read", "orders", "--run", dirty.run_id, "--quarantine")
        assert (refused.returncode, "AccessDenied" in refused.stdout) == (_EXIT_REFUSED, True), refused.stdout
        assert not reader.may("get_object", Bucket=published, Key=bad)
        assert not reader.may("get_object", Bucket=landing, Key=dirty.source.key)
        assert not reader.may("put_object", Bucket=landing, Key="incoming/orders/reader.csv", Body=b"")
        assert not reader.may("put_object", Bucket=published, Key="data/orders/forged.parquet", Body=b"")


def test_a_producer_writes_only_below_its_prefix_and_reads_nothing(chain: Chain, policies: dict[str, str]) -> None:
    landing = chain.outputs["LandingBucket"]
    with somebody_with(chain, policies, "producer") as producer:
        # The trigger ignores names that start with an underscore.
        assert producer.may("put_object", Bucket=landing, Key="incoming/orders/_people.csv", Body=b"")
        for key in ("incoming/penguins/_people.csv", "incoming/orders_2/_people.csv", "outside.csv"):
            assert not producer.may("put_object", Bucket=landing, Key=key, Body=b""), key
        assert not producer.may("get_object", Bucket=landing, Key="incoming/orders/_people.csv")
        assert not producer.may("list_objects_v2", Bucket=landing)
        assert not producer.may("list_objects_v2", Bucket=chain.outputs["PublishedBucket"])


def test_a_producer_who_is_also_a_reader_can_follow_uploads_with_the_command(
    chain: Chain, policies: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "producer.csv"
    file.write_bytes(orders(order(1)))
    with somebody_with(chain, policies, "producer", "reader") as producer:
        followed = producer.sluice("upload", str(file), "--dataset", "orders")
        assert (followed.returncode, "1 of 1 published" in followed.stdout) == (0, True), followed.stdout
        status = producer.sluice("status")
        assert (status.returncode, "producer.csv" in status.stdout) == (0, True), status.stdout
    chain.settle()


def test_a_steward_exports_the_quarantine_and_publishes_corrections_with_one_more_policy(
    chain: Chain, policies: dict[str, str], dirty: Receipt, tmp_path: Path
) -> None:
    file = tmp_path / "corrected.csv"
    with somebody_with(chain, policies, "reader", "steward") as steward:
        exported = steward.sluice("repair", "--run", dirty.run_id, "--export", str(file))
        assert exported.returncode == 0, exported.stdout
        file.write_text(file.read_text(encoding="utf-8-sig").replace("cheap", "9.50"))
        assert steward.sluice("repair", str(file), "--run", dirty.run_id, "--yes").returncode == _EXIT_REFUSED
    with somebody_with(chain, policies, "reader", "steward", "repair") as steward:
        repaired = steward.sluice("repair", str(file), "--run", dirty.run_id, "--yes")
        assert repaired.returncode == 0, repaired.stdout
    published = chain.s3.get_object(Bucket=chain.outputs["PublishedBucket"], Key=f"receipts/{dirty.run_id}.json")
    now = Receipt.from_json(published["Body"].read())
    assert (now.attempt, now.rows.published, now.rows.quarantined_total) == (1, 8, 0)
    chain.settle()
