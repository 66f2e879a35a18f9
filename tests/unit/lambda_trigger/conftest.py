"""The S3 events in tests/events, as copies that a test may modify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EVENTS = Path(__file__).resolve().parents[2] / "events"


@pytest.fixture
def s3_put() -> dict[str, Any]:
    """Return the event that S3 sends for one uploaded object."""
    event: dict[str, Any] = json.loads((EVENTS / "s3_put.json").read_text())
    return event


@pytest.fixture
def s3_test_event() -> dict[str, Any]:
    """Return the test event that S3 sends when a notification is configured."""
    event: dict[str, Any] = json.loads((EVENTS / "s3_test_event.json").read_text())
    return event
