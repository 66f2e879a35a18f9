"""The summary that Prefect's UI shows for a receipt escapes names, has correct totals and links to AWS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.client.schemas.objects import StateType

from blocks.aws_errors import AwsUnavailable
from blocks.object_store import ObjectGone
from flows.observability.display import rows_in
from flows.observability.observed_upload import final_state
from flows.observability.run_identity import artifact_name
from flows.observability.run_summary import (
    ConsoleLinks,
    checks_table,
    outcome_message,
    outcome_name,
    outcome_tags,
    state_message,
    upload_summary,
)
from flows.pipeline.job import TaskLog
from flows.pipeline.receipt import Chain, Rows
from flows.refinery.checks import Check, Decision, RejectionReason
from flows.refinery.errors import SluiceError
from flows.refinery.read.remote_file import RemoteFile
from tests.unit.flows.pipeline.receipts import receipt_of, upload

EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:sluice-ProcessUpload-1:orders-0123abcd"
TASK = "arn:aws:ecs:eu-central-1:123456789012:task/sluice-Cluster/0123456789abcdef0123456789abcdef"
QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/uploads"


def links(queue_url: str = QUEUE) -> ConsoleLinks:
    return ConsoleLinks.of(queue_url, "published", TaskLog("/sluice/tasks", "drain/drain/0123456789abcdef"))


def test_the_execution_opens_in_the_console_of_its_region() -> None:
    assert links().execution(EXECUTION) == (
        "[`orders-0123abcd`](https://eu-central-1.console.aws.amazon.com/states/home?region=eu-central-1"
        f"#/v2/executions/details/{EXECUTION})"
    )


def test_the_task_opens_under_its_cluster() -> None:
    assert links().task(TASK) == (
        "[`0123456789abcdef0123456789abcdef`](https://eu-central-1.console.aws.amazon.com/ecs/v2/clusters/sluice-Cluster"
        "/tasks/0123456789abcdef0123456789abcdef/configuration?region=eu-central-1)"
    )


def test_the_name_of_the_log_stream_is_encoded_for_the_console() -> None:
    """The CloudWatch console percent-encodes a stream's name twice and then replaces "%" with "$": "/" is "$252F"."""
    assert links().log == (
        "[`drain/drain/0123456789abcdef`](https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1"
        "#logsV2:log-groups/log-group/$252Fsluice$252Ftasks/log-events/drain$252Fdrain$252F0123456789abcdef)"
    )


def test_the_link_to_an_object_names_its_version_and_encodes_its_key() -> None:
    assert links().object("landing", "incoming/orders/a b&c.csv", "v+1/2") == (
        "[`s3://landing/incoming/orders/a b&c.csv`](https://eu-central-1.console.aws.amazon.com/s3/object/landing"
        "?region=eu-central-1&prefix=incoming/orders/a%20b%26c.csv&versionId=v%2B1/2)"
    )


@pytest.mark.parametrize(
    ("queue_url", "console"),
    [
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/uploads", "https://cn-north-1.console.amazonaws.cn/"),
        ("https://sqs.us-gov-west-1.amazonaws.com/1/uploads", "https://us-gov-west-1.console.amazonaws-us-gov.com/"),
        ("https://eu-west-1.queue.amazonaws.com/1/uploads", "https://eu-west-1.console.aws.amazon.com/"),
    ],
)
def test_every_partition_has_its_own_console(queue_url: str, console: str) -> None:
    assert f"]({console}" in links(queue_url).execution(EXECUTION)


def test_in_the_local_cloud_there_are_no_links_to_a_console() -> None:
    local = links("http://127.0.0.1:4566/000000000000/uploads")
    shown = [local.execution(EXECUTION), local.task(TASK), local.log, local.object("landing", "a.csv")]
    assert not [text for text in shown if text is None or "http" in text or "](" in text]


def test_the_summary_has_row_counts_timings_and_links_to_aws() -> None:
    rows = Rows(rows_in=1_015, published=1_000, quarantined={"not_a_number(price)": 5}, dropped={"drop_duplicates": 10})
    chain = Chain(execution_arn=EXECUTION, task_arn=TASK, message_id="m-1", receive_count=2)
    receipt = receipt_of(upload(), rows=rows, chain=chain, timings_seconds={"fetch": 0.1234})
    text = upload_summary(receipt, links())
    assert "## Published, 5 rows quarantined" in text
    for part in ("| in the file | 1,015 |", "| published | 1,000 |", "`not_a_number(price)` | 5 |", "| fetch | 0.12 |"):
        assert part in text
    for part in (EXECUTION, "/ecs/v2/clusters/sluice-Cluster/", "#logsV2:", f"receipts/{receipt.run_id}.json"):
        assert part in text
    assert "delivery: 2" in text


def test_the_summary_shows_how_the_file_was_read() -> None:
    read_as = (
        Decision(name="encoding", value="utf-8", basis="proven"),
        Decision(name="delimiter", value="\t", basis="declared"),
        Decision(name="quote", value="`", basis="declared"),
    )
    text = upload_summary(receipt_of(upload(), read_as=read_as), links())
    assert "- proven: `encoding utf-8`" in text
    assert r"- declared: `delimiter '\t'`, `quote '_'`" in text


def test_a_file_name_cannot_become_markup() -> None:
    named = upload(key="incoming/orders/`![x](evil)`|\n# big.csv")
    text = upload_summary(receipt_of(named), ConsoleLinks(None, "published"))
    assert "`_![x](evil)___# big.csv`" in text
    assert "\n# big" not in text


@pytest.mark.parametrize("column", ["![x](https://evil/p.png)", "[click](javascript:x)", "<img src=x>", "a\n# big"])
def test_a_column_that_a_reason_quotes_cannot_become_markup(column: str) -> None:
    reason = RejectionReason(code="header_invalid", message=f"there is no column 'a'; there are {column}")
    text = upload_summary(receipt_of(upload(), published=False, reasons=(reason,)), ConsoleLinks(None, "published"))
    assert not re.search(r"(?<!\\)[\[<]|\n# ", text)


def test_a_reason_shows_the_observed_and_the_expected_value() -> None:
    compared = RejectionReason(code="row_count", message="too few rows", observed=3, expected={"min_value": 10})
    plain = RejectionReason(code="empty_file", message="the file is empty")
    receipt = receipt_of(upload(), published=False, reasons=(compared, plain))
    text = upload_summary(receipt, ConsoleLinks(None, "published"))
    assert '- too few rows (`row_count`): observed `3`, expected `{"min_value": 10}`' in text
    assert "- the file is empty (`empty_file`)\n" in text


def test_the_run_of_a_rejected_file_shows_the_first_reason_and_how_to_retry() -> None:
    receipt = receipt_of(upload(), published=False)
    assert outcome_name(receipt) == "Rejected: empty"
    assert outcome_message(receipt) == "the file is empty"
    assert state_message(receipt) == "the file is empty"
    assert outcome_tags(receipt) == {"orders", "rejected"}
    assert "press Retry" in upload_summary(receipt, ConsoleLinks(None, "published"))


def test_quarantined_rows_are_in_the_states_message_and_a_tag() -> None:
    receipt = receipt_of(upload(), rows=Rows(rows_in=12, published=10, quarantined={"not_null(a)": 2}))
    assert state_message(receipt) == "10 rows published, 2 quarantined"
    assert outcome_tags(receipt) == {"orders", "published", "quarantined"}


@pytest.mark.parametrize(("published", "state"), [(True, StateType.COMPLETED), (False, StateType.FAILED)])
@pytest.mark.parametrize("dry_run", [True, False])
def test_final_states_have_the_names_that_prefects_pages_filter_by(
    published: bool, state: StateType, dry_run: bool
) -> None:
    ended = final_state(receipt_of(upload(), published=published), dry_run=dry_run)
    assert (ended.type, ended.name) == (state, state.value.capitalize())


def test_failed_checks_come_first_in_the_table() -> None:
    passed = _check("expect_a(x)", success=True, rows_failing=0)
    failed = _check("expect_b(x)", success=False, rows_failing=7, observed="y" * 500)
    first, second = checks_table(receipt_of(upload(), checks=(passed, failed))).splitlines()[-2:]
    assert first.startswith("| fail | `expect_b(x)` | 7 | 1,000 | `yyy")
    assert first.count("y") < 130, "a long value is cut"
    assert second.startswith("| pass | `expect_a(x)` |")


def _check(rule: str, **found: Any) -> Check:
    fields = {
        "expectation": rule,
        "column": "x",
        "kind": "row",
        "severity": "warning",
        "observed": None,
        "expected": None,
    }
    return Check(rule=rule, rows_evaluated=1_000, **{**fields, **found})


@pytest.mark.parametrize(("dataset", "key"), [("orders", "orders"), ("Daily_Orders", "daily-orders")])
def test_artifact_keys_are_the_same_for_every_run_of_a_dataset(dataset: str, key: str) -> None:
    assert artifact_name(dataset) == key


def test_the_number_of_rows_is_counted_or_estimated_before_they_are_read(tmp_path: Path) -> None:
    text, packed, parquet = tmp_path / "a.csv", tmp_path / "a.csv.gz", tmp_path / "a.parquet"
    text.write_bytes(b"a,b\n" * 600_000)
    packed.write_bytes(b"\x1f\x8b" + bytes(100))
    pq.write_table(pa.table({"a": [1, 2, 3]}), parquet)
    assert rows_in(text) == 600_000
    assert rows_in(packed) is None
    assert rows_in(parquet) == 3


@pytest.mark.parametrize("error", [AwsUnavailable("throttled"), ObjectGone("deleted")])
def test_the_number_of_rows_is_unknown_if_the_object_cannot_be_read(tmp_path: Path, error: SluiceError) -> None:
    def refuse(_offset: int, _size: int) -> bytes:
        raise error

    assert rows_in(RemoteFile(100, tmp_path, refuse)) is None
