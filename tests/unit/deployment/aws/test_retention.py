"""The retention of a dataset becomes lifecycle rules for its objects and their old versions, and for no others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from deployment.aws.deploy_stack import TEMPLATE
from deployment.aws.environments import EnvironmentInvalid, load_environment
from deployment.aws.retention import Retention
from deployment.aws.templates import template_body

RETENTIONS = {
    "orders": Retention(uploads=365, data=1825, quarantine=30),
    "*": Retention(quarantine=90),
}


def rules_of(bucket: str, body: str) -> dict[str, dict[str, Any]]:
    """Return prefix → rule for the lifecycle rules that were added to a bucket in a template."""
    rules = json.loads(body)["Resources"][bucket]["Properties"]["LifecycleConfiguration"]["Rules"]
    added = [rule for rule in rules if rule["Id"].startswith("retention-")]
    assert len(rules) > len(added)
    return {rule["Prefix"] if isinstance(rule["Prefix"], str) else rule["Prefix"]["Fn::Sub"]: rule for rule in added}


def test_each_kind_of_object_of_a_dataset_has_its_rule() -> None:
    body = template_body(TEMPLATE, retentions=RETENTIONS)
    landing, published = rules_of("LandingBucket", body), rules_of("PublishedBucket", body)
    assert {prefix: rule["ExpirationInDays"] for prefix, rule in (landing | published).items()} == {
        "${IncomingPrefix}orders/": 365,
        "data/orders/": 1825,
        "quarantine/orders/": 30,
        "quarantine/": 90,
    }


def test_receipts_and_the_index_never_expire() -> None:
    prefixes = rules_of("PublishedBucket", template_body(TEMPLATE, retentions={"*": Retention(data=1, quarantine=1)}))
    assert set(prefixes) == {"data/", "quarantine/"}


def test_old_versions_expire_soon_but_uploads_outlast_every_waiting_message() -> None:
    """The dead-letter queue keeps its messages the longest: 14 days."""
    body = template_body(TEMPLATE, retentions=RETENTIONS)
    days = {
        prefix: rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
        for bucket in ("LandingBucket", "PublishedBucket")
        for prefix, rule in rules_of(bucket, body).items()
    }
    assert days == {"${IncomingPrefix}orders/": 15, "data/orders/": 1, "quarantine/orders/": 1, "quarantine/": 1}
    template = json.loads(body)["Resources"]["DeadLetterQueue"]["Properties"]
    assert days["${IncomingPrefix}orders/"] * 86_400 > template["MessageRetentionPeriod"]


@pytest.mark.heavy
def test_s3_and_linters_accept_the_rules(tmp_path: Path) -> None:
    body = template_body(TEMPLATE, retentions=RETENTIONS)
    (tmp_path / "template.json").write_text(body)
    linted = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--ignore-checks", "W", "--", tmp_path / "template.json"],
        capture_output=True,
        text=True,
    )
    assert linted.stdout == ""
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="published")
        rules: Any = [
            {
                "ID": rule["Id"],
                "Status": rule["Status"],
                "Filter": {"Prefix": prefix},
                "Expiration": {"Days": rule["ExpirationInDays"]},
                "NoncurrentVersionExpiration": rule["NoncurrentVersionExpiration"],
            }
            for prefix, rule in rules_of("PublishedBucket", body).items()
        ]
        s3.put_bucket_lifecycle_configuration(Bucket="published", LifecycleConfiguration={"Rules": rules})
        assert len(s3.get_bucket_lifecycle_configuration(Bucket="published")["Rules"]) == len(rules)


def environment(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "production.yaml"
    path.write_text(text)
    return path


def test_an_environment_file_sets_tags_and_retention(tmp_path: Path) -> None:
    text = "tags: {cost-center: 4711}\nretention:\n  orders: {data: 30}\n"
    loaded = load_environment(str(environment(tmp_path, text)))
    assert loaded.tags == {"cost-center": "4711"}
    assert loaded.retention == {"orders": Retention(data=30)}
    assert load_environment(None).tags is None


@pytest.mark.parametrize(
    "wrong",
    [
        "orders: {uploads: 14}",
        "orders: {data: 0}",
        "orders: {receipts: 30}",
        "'orders/': {data: 30}",
        "'../x': {data: 1}",
    ],
)
def test_a_retention_that_is_too_short_or_for_other_objects_is_rejected(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(EnvironmentInvalid, match="retention"):
        load_environment(str(environment(tmp_path, f"retention:\n  {wrong}\n")))
