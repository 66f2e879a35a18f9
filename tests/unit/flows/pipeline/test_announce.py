"""Outcomes are announced as events without values from the data, and as metrics that CloudWatch reads from the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from blocks.aws_errors import AwsUnavailable
from blocks.event_bus import MAX_CALL_BYTES, MAX_ENTRIES, Event, EventBus
from blocks.settings import PipelineSettings
from flows.pipeline.announce import (
    Announcer,
    OutcomeNotice,
    OutcomeStatus,
    event_of,
    metric_lines,
    notice_of,
)
from flows.pipeline.attempts import Attempt
from flows.pipeline.errors import OutOfMemory
from flows.pipeline.receipt import Rows
from flows.refinery.checks import RejectionReason
from flows.refinery.errors import SluiceError
from tests.unit.flows.conftest import Account
from tests.unit.flows.pipeline.receipts import receipt_of, upload

SETTINGS = PipelineSettings(
    stack="sluice", landing_bucket="landing", published_bucket="published", queue_url="http://queue"
)
BY_DATASET = SETTINGS.model_copy(update={"dataset_metrics": True})


class Bus(EventBus):
    """A fake event bus that accepts every event, except those of the runs in `refused`."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.taken: list[Event] = []
        self._refused = refused

    def put(self, events: Sequence[Event]) -> list[SluiceError | None]:
        answers: list[SluiceError | None] = [
            AwsUnavailable("throttled") if json.loads(event.detail)["run_id"] in self._refused else None
            for event in events
        ]
        self.taken += [event for event, answer in zip(events, answers, strict=True) if answer is None]
        return answers


def published(version: int = 1, **changes: Any) -> OutcomeNotice:
    return notice_of(receipt_of(upload(version), **changes), SETTINGS)


def rejected(version: int = 1, **changes: Any) -> OutcomeNotice:
    return notice_of(receipt_of(upload(version), published=False, **changes), SETTINGS)


def failed(version: int = 1, message: str = "give the task 4096 MiB") -> OutcomeNotice:
    attempt = Attempt.of(
        upload(version), OutOfMemory(message), dataset="orders", receive_count=5, task_arn=None, given_up=True
    )
    return notice_of(attempt, SETTINGS)


def metrics_of(notices: Sequence[OutcomeNotice], refused: int = 0, settings: PipelineSettings = SETTINGS) -> list[Any]:
    return list(metric_lines(notices, refused, settings))


def declared(line: dict[str, Any]) -> list[str]:
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    return [metric["Name"] for metric in directive["Metrics"]]


# --- events -----------------------------------------------------------------------------------------------------------


def test_the_event_of_a_published_upload_has_its_row_counts_and_its_receipt_uri() -> None:
    notice = published(rows=Rows(rows_in=10, published=7, quarantined={"a": 1, "b": 1}, dropped={"c": 1}))
    event = event_of(notice, "sluice")
    assert (event.source, event.detail_type) == ("sluice", "Sluice Upload Published")
    assert json.loads(event.detail) == {
        "schema": 1,
        "stack": "sluice",
        "status": "published",
        "dataset": "orders",
        "bucket": "landing",
        "key": "incoming/orders/monday.csv",
        "version_id": "v1",
        "run_id": upload().run_id,
        "attempt": 0,
        "rows": {"rows_in": 10, "published": 7, "quarantined": 2, "dropped": 1},
        "receipt_uri": f"s3://published/receipts/{upload().run_id}.json",
        "error": None,
    }


def test_the_event_of_a_rejected_upload_has_the_reason() -> None:
    event = event_of(rejected(), "sluice")
    assert event.detail_type == "Sluice Upload Rejected"
    assert json.loads(event.detail)["error"] == {"code": "empty", "message": "the file is empty"}


def test_the_event_of_an_upload_that_was_given_up_has_the_reason_and_no_receipt() -> None:
    event = event_of(failed(), "sluice")
    detail = json.loads(event.detail)
    assert event.detail_type == "Sluice Upload Failed"
    assert detail["error"] == {"code": "out_of_memory", "message": "give the task 4096 MiB"}
    assert (detail["rows"], detail["receipt_uri"]) == (None, None)


def test_the_observed_and_expected_values_of_a_reason_are_not_in_the_event() -> None:
    secret = RejectionReason(code="mean", message="the mean is wrong", observed="4711", expected="0815")
    assert not {"4711", "0815"} & set(event_of(rejected(reasons=(secret,)), "sluice").detail.split('"'))


def test_ten_events_with_the_longest_keys_and_messages_fit_into_one_call() -> None:
    longest = replace(failed(message="\x01" * 5_000), key="\x01" * 1_024, version_id="v" * 1_024)
    assert event_of(longest, "sluice").size_bytes * MAX_ENTRIES <= MAX_CALL_BYTES


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_a_line_counts_outcomes_and_rows_of_the_stack() -> None:
    (line,) = metrics_of([published(1), published(2), rejected(3), failed(4)])
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"], line["Stack"]) == ("Sluice", [["Stack"]], "sluice")
    assert {name: line[name] for name in declared(line)} == {
        "UploadsPublished": 2,
        "UploadsRejected": 1,
        "UploadsFailed": 1,
        "RowsPublished": 20,
        "SecondsFromUploadToReceipt": [1.0, 1.0, 1.0],
    }
    assert {metric["Unit"] for metric in directive["Metrics"]} == {"Count", "Seconds"}


def test_a_metric_that_would_be_zero_is_left_out() -> None:
    (line,) = metrics_of([published()])
    assert set(declared(line)) == {"UploadsPublished", "RowsPublished", "SecondsFromUploadToReceipt"}


def test_a_forced_rerun_has_no_time_from_upload_to_receipt() -> None:
    (line,) = metrics_of([notice_of(receipt_of(upload(attempt=1)), SETTINGS)])
    assert "SecondsFromUploadToReceipt" not in declared(line)


def test_datasets_have_separate_metrics_only_if_the_setting_is_on() -> None:
    other = replace(published(2), dataset="penguins")
    assert [line.get("Dataset") for line in metrics_of([published(1), other])] == [None]
    lines = metrics_of([published(1), other], settings=BY_DATASET)
    assert [(line["Dataset"], line["UploadsPublished"]) for line in lines] == [("orders", 1), ("penguins", 1)]
    for line in lines:
        assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Stack"], ["Stack", "Dataset"]]


def test_a_line_has_no_more_values_of_a_metric_than_cloudwatch_accepts() -> None:
    lines = metrics_of([published(number) for number in range(250)])
    assert [len(line["SecondsFromUploadToReceipt"]) for line in lines] == [100, 100, 50]


# --- both -------------------------------------------------------------------------------------------------------------


def test_an_event_that_eventbridge_rejects_counts_as_not_announced(
    account: Account, capfd: pytest.CaptureFixture[str]
) -> None:
    bus = Bus(upload(2).run_id)
    taken = Announcer(account.parts, bus).announce([published(1), published(2)])
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert taken == {upload(1).run_id}
    assert [json.loads(event.detail)["run_id"] for event in bus.taken] == [upload(1).run_id]
    assert [line.get("OutcomesNotAnnounced", line.get("UploadsPublished")) for line in lines] == [1, 1]
    assert all({"_aws", "time", "level", "logger", "event"} <= set(line) for line in lines)


def test_announcing_goes_through_the_default_bus(account: Account) -> None:
    assert Announcer(account.parts).announce([published(1), failed(2)]) == {upload(1).run_id, upload(2).run_id}


def test_announcing_never_raises(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus()
    monkeypatch.setattr(bus, "put", lambda _: 1 / 0)
    assert Announcer(account.parts, bus).announce([published()]) == frozenset()


def test_nothing_to_announce_prints_nothing(account: Account, capfd: pytest.CaptureFixture[str]) -> None:
    assert Announcer(account.parts, Bus()).announce([]) == frozenset()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("status", OutcomeStatus)
def test_detail_types_and_metrics_follow_one_pattern(status: OutcomeStatus) -> None:
    assert status.detail_type == f"Sluice Upload {status.value.title()}"
    assert status.metric == f"Uploads{status.value.title()}"
