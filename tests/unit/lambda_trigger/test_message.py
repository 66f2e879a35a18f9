"""An upload has the same identity in every component, no matter how often it is computed."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_trigger.message import (
    MessageUnreadable,
    UploadMessage,
    folder_of,
    run_id_of,
)

UPLOAD = UploadMessage(
    bucket="landing",
    key="incoming/orders/monday.csv",
    version_id="v1",
    etag="d41d8cd98f00b204e9800998ecf8427e",
    size_bytes=12,
    sequencer="0055AED6DCD90281E5",
    event_time="2026-01-01T00:00:00.000Z",
)

keys = st.text(min_size=1, max_size=200)


def test_the_run_id_is_the_same_for_every_delivery_of_an_object_version() -> None:
    again = replace(UPLOAD, sequencer=None, event_time=None, size_bytes=0)
    assert again.run_id == UPLOAD.run_id
    assert re.fullmatch(r"[0-9a-f]{32}", UPLOAD.run_id)


def test_the_run_id_never_changes_between_releases() -> None:
    """The run ID is part of the keys of receipts in users' buckets, so the way it is computed must not change."""
    assert run_id_of("b", "k", "v", "e", None) == "31b60cc0b81fcf4a6c39ce59fa6eed93"
    assert run_id_of("b", "k", None, "e", "s") == "bcb1e397c4236cae15e7442f9ad5619c"


def test_two_versions_of_a_key_are_two_runs() -> None:
    assert replace(UPLOAD, version_id="v2").run_id != UPLOAD.run_id


def test_without_versioning_the_same_bytes_uploaded_twice_are_two_runs() -> None:
    first = replace(UPLOAD, version_id=None)
    assert first.run_id != replace(first, sequencer="0055AED6DCD90281E6").run_id


def test_bucket_and_key_cannot_be_shifted_into_each_other() -> None:
    assert run_id_of("a", "b/c", "v", "e", None) != run_id_of("a/b", "c", "v", "e", None)


@given(
    key=keys,
    version_id=st.none() | st.text(min_size=1, max_size=50),
    size_bytes=st.integers(0, 2**50),
    attempt=st.integers(0, 100),
)
def test_a_message_survives_json(key: str, version_id: str | None, size_bytes: int, attempt: int) -> None:
    upload = replace(UPLOAD, key=key, version_id=version_id, size_bytes=size_bytes, attempt=attempt)
    assert UploadMessage.from_json(upload.to_json()) == upload


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": 2}, "schema 2"),
        ({"schema": None}, "schema None"),
        ({"key": 7}, "'key'"),
        ({"size_bytes": "12"}, "'size_bytes'"),
        ({"size_bytes": True}, "'size_bytes'"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"colour": "red"}, "'colour'"),
    ],
)
def test_an_invalid_message_is_rejected_with_the_field(change: dict[str, object], named: str) -> None:
    text = json.dumps({**json.loads(UPLOAD.to_json()), **change})
    with pytest.raises(MessageUnreadable) as raised:
        UploadMessage.from_json(text)
    assert named in str(raised.value)


@pytest.mark.parametrize("text", ["", "not json", "[]", "7", '{"schema": 1}', "null", "[" * 100_000])
def test_a_string_that_is_not_a_message_is_rejected(text: str) -> None:
    with pytest.raises(MessageUnreadable):
        UploadMessage.from_json(text)


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("incoming/orders/monday.csv", "orders"),
        ("incoming/orders/2026/monday.csv", "orders"),
        ("incoming/Sales Data/x.csv", "sales-data"),
        ("incoming/x.csv", ""),
        ("incoming/../../receipts/x", ""),
        ("incoming/é/x.csv", ""),
    ],
)
def test_the_folder_of_a_key_is_a_safe_name(key: str, folder: str) -> None:
    assert folder_of(key, "incoming/") == folder
