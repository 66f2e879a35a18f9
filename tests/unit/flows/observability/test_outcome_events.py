"""The events that automations match do not claim more than what happened."""

from __future__ import annotations

from flows.observability.outcome_events import ATTEMPT_FAILED, outcome_event
from flows.pipeline.announce import OutcomeError, OutcomeNotice, OutcomeStatus


def test_a_failed_attempt_does_not_have_the_status_of_an_upload_that_was_given_up() -> None:
    error = OutcomeError("aws_unavailable", "S3 is busy")
    notice = OutcomeNotice(
        status=OutcomeStatus.FAILED,
        dataset="orders",
        bucket="landing",
        key="incoming/orders/a.csv",
        version_id="1",
        run_id="0" * 32,
        attempt=0,
        error=error,
    )
    assert outcome_event(notice, "sluice", None, what=ATTEMPT_FAILED).payload["status"] == "attempt-failed"
    assert outcome_event(notice, "sluice", None).payload["status"] == "failed"
