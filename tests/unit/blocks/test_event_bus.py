"""Events are put on the bus in batches within EventBridge's limits, and each rejected event gets its error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blocks import aws as aws_clients
from blocks.aws_errors import AwsCallInvalid, AwsRefused, AwsUnavailable
from blocks.event_bus import MAX_CALL_BYTES, Event, EventBus


def event(detail: str = "{}") -> Event:
    return Event("sluice", "Sluice Upload Published", detail)


def calls_of(bus: EventBus) -> list[list[dict[str, Any]]]:
    """Return a list to which the entries of each PutEvents call will be added."""
    calls: list[list[dict[str, Any]]] = []
    hooks = bus._events.meta.events
    hooks.register("provide-client-params.events.PutEvents", lambda params, **_: calls.append(params["Entries"]))
    return calls


def test_events_are_put_on_the_default_bus_in_order_ten_per_call(aws: None) -> None:
    bus = EventBus()
    calls = calls_of(bus)
    assert bus.put([event(json.dumps({"number": number})) for number in range(25)]) == [None] * 25
    assert [len(entries) for entries in calls] == [10, 10, 5]
    entries = [entry for call in calls for entry in call]
    assert [json.loads(entry["Detail"])["number"] for entry in entries] == list(range(25))
    assert {(entry["Source"], entry["DetailType"], entry["EventBusName"]) for entry in entries} == {
        ("sluice", "Sluice Upload Published", "default")
    }


def test_a_call_is_no_larger_than_eventbridge_allows(aws: None) -> None:
    bus = EventBus()
    calls = calls_of(bus)
    large = event(json.dumps({"text": "ä" * (MAX_CALL_BYTES // 6)}, ensure_ascii=False))
    bus.put([large] * 5)
    assert [len(entries) for entries in calls] == [2, 2, 1]


def test_putting_no_events_makes_no_call(aws: None) -> None:
    bus = EventBus()
    calls = calls_of(bus)
    assert bus.put([]) == []
    assert calls == []


def test_a_rejected_event_does_not_affect_the_others_in_its_call(aws: None) -> None:
    answers = EventBus().put([event('{"number": 1}'), event("no JSON"), event('{"number": 3}')])
    assert [type(answer) for answer in answers] == [type(None), AwsCallInvalid, type(None)]


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("ThrottlingException", AwsUnavailable),
        ("InternalFailure", AwsUnavailable),
        ("AccessDeniedException", AwsRefused),
    ],
)
def test_the_code_of_a_rejected_event_becomes_the_error_for_its_cause(
    aws: None, monkeypatch: pytest.MonkeyPatch, code: str, meaning: type[Exception]
) -> None:
    bus = EventBus()
    entries = [{"EventId": "1"}, {"ErrorCode": code, "ErrorMessage": "no"}]
    monkeypatch.setattr(bus._events, "put_events", lambda **_: {"FailedEntryCount": 1, "Entries": entries})
    assert [type(answer) for answer in bus.put([event(), event()])] == [type(None), meaning]


def test_the_event_of_a_call_that_gets_no_response_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EVENTS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr(aws_clients, "_MAX_ATTEMPTS", 1)
    answers = EventBus().put([event()])
    assert len(answers) == 1
    assert isinstance(answers[0], AwsUnavailable)
