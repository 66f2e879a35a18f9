"""`sluice read` shows rows, exports them, and reports files that it cannot read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from blocks.object_store import ObjectStore
from blocks.settings import PipelineSettings
from deployment.commands import SafeConsole
from deployment.commands.read import read
from deployment.commands.user_paths import PathUnwritable
from deployment.deployed_stack import AwsStack
from flows.composition import assemble
from flows.pipeline.job import UploadJob
from flows.pipeline.receipt import Receipt, receipt_key
from flows.pipeline.run import run_upload
from flows.published.rows import Selection
from lambda_trigger.message import UploadMessage
from tests.unit.empty_account import empty_account

BUCKETS = {"LandingBucket": "landing", "PublishedBucket": "published"}
STACK = AwsStack("us-east-1", "", "sluice", BUCKETS, {})


def publish(key: str) -> Receipt:
    """Upload the sample file penguins.csv with this key, process it, and return the receipt."""
    body = Path("deployment/samples/penguins.csv").read_bytes()
    etag = boto3.client("s3").put_object(Bucket="landing", Key=key, Body=body)["ETag"].strip('"')
    settings = PipelineSettings(stack="sluice", landing_bucket="landing", published_bucket="published", queue_url="")
    message = UploadMessage(bucket="landing", key=key, version_id=None, etag=etag, size_bytes=len(body))
    return run_upload(assemble(settings), UploadJob(message))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receipt]:
    """Publish the sample file penguins.csv and return its receipt."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with empty_account():
        for bucket in BUCKETS.values():
            boto3.client("s3").create_bucket(Bucket=bucket)
        yield publish("incoming/penguins/penguins.csv")


def shown(selection: Selection, *, width: int = 0, export: Path | None = None, complete: bool = True) -> list[str]:
    """Return the lines that `sluice read penguins` prints. If `width` is given, the output is a terminal."""
    output = io.StringIO()
    console = SafeConsole(file=output, soft_wrap=True, highlight=False, force_terminal=width > 0, width=width or None)
    console.no_color = True
    assert read(console, STACK, "penguins", selection, export) is complete
    return output.getvalue().splitlines()


def test_rows_are_shown_with_how_many_there_are(published: Receipt) -> None:
    header, first, second, counted, more = shown(Selection(limit=2))
    assert header.split()[:2] == ["species", "island"]
    assert first.split()[:2] == second.split()[:2] == ["Adelie", "Torgersen"]
    assert counted.startswith("2 of 342 rows published, from 1 file")
    assert more.endswith("sluice read penguins --export penguins.parquet")


def test_a_terminal_gets_the_columns_that_fit_and_the_names_of_the_others(published: Receipt) -> None:
    lines = shown(Selection(limit=2), width=40)
    assert "island" in lines[0]
    assert "sex" not in lines[0]
    (others,) = (line for line in lines if "more column" in line)
    assert "sex" in others


def test_control_characters_of_a_value_do_not_reach_the_terminal(published: Receipt) -> None:
    publish("incoming/penguins/\x1b[31mred.csv")
    assert not any("\x1b[31m" in line for line in shown(Selection(limit=400, with_source=True)))


def test_an_export_prints_how_many_rows_it_has(published: Receipt, tmp_path: Path) -> None:
    path = tmp_path / "penguins.parquet"
    assert shown(Selection(), export=path) == [f"wrote 342 of 342 rows to {path}"]


def test_an_export_that_cannot_be_written_names_the_path(published: Receipt, tmp_path: Path) -> None:
    with pytest.raises(PathUnwritable, match=r"nowhere/penguins\.csv"):
        shown(Selection(), export=tmp_path / "nowhere" / "penguins.csv")


def test_rows_that_have_expired_are_not_an_error(published: Receipt) -> None:
    rule: Any = {"ID": "all", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 5}}
    s3 = boto3.client("s3")
    s3.put_bucket_lifecycle_configuration(Bucket="published", LifecycleConfiguration={"Rules": [rule]})
    old = published.model_copy(update={"created_at": "2026-01-01T00:00:00.000000Z"})
    s3.put_object(Bucket="published", Key=receipt_key(old.run_id), Body=old.to_json())
    counted, expired = shown(Selection())[-2:]
    assert counted == "0 of 0 rows published, from 0 files"
    assert expired == "1 more file: the rows have expired, data/penguins/ is kept for 5 days"


def test_an_unreadable_object_is_listed_and_the_command_fails(published: Receipt) -> None:
    ObjectStore("landing", "published").put(receipt_key(published.run_id), "{}")
    *_, last = shown(Selection(), complete=False)
    assert last.startswith(f"unreadable s3://published/{receipt_key(published.run_id)}")
