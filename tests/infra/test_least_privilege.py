"""Tests that the comparison of policies with calls finds every type of deviation. The last step of `make test` runs it
on real records."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.template import load_template, resources_of, statements_of
from tests.privileges.__main__ import EXCEPTIONS, SINGLE_EXCEPTIONS
from tests.privileges.calls import Call, Record
from tests.privileges.compare import missing, unused

BUCKET, RECEIPTS = "arn:aws:s3:::published", "arn:aws:s3:::published/receipts/*"


def policies(**more: Any) -> dict[str, list[dict[str, Any]]]:
    statement = {"Sid": "Receipts", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [RECEIPTS], **more}
    return {"TaskRole": [statement]}


def call(action: str = "s3:GetObject", resource: str = f"{BUCKET}/receipts/1.json", *, allowed: bool = True) -> Call:
    return Call("TaskRole", action, resource, allowed)


def test_what_is_allowed_and_done_is_in_order() -> None:
    record = Record(policies(), [call()])
    assert (missing([record]), unused([record])) == ([], [])


def test_what_is_allowed_and_never_done_is_found() -> None:
    found = unused([Record(policies(Action=["s3:GetObject", "s3:PutObject"]), [call()])])
    assert [(one.sid, one.action) for one in found] == [("Receipts", "s3:PutObject")]


def test_a_resource_that_an_action_never_reaches_is_found() -> None:
    found = unused([Record(policies(Resource=[RECEIPTS, f"{BUCKET}/docs/*"]), [call()])])
    assert [one.resource for one in found] == [f"{BUCKET}/docs/*"]


def test_one_stack_may_show_what_another_does_not() -> None:
    assert unused([Record(policies(), []), Record(policies(), [call()])]) == []


def test_a_refused_call_does_not_count_as_done() -> None:
    assert unused([Record(policies(), [call(allowed=False)])]) != []


def test_what_is_needed_and_not_allowed_is_found() -> None:
    refused = call("s3:DeleteObject", allowed=False)
    assert missing([Record(policies(), [call(), refused])]) == [refused]


def test_a_right_that_a_test_took_away_is_not_missing() -> None:
    assert missing([Record(policies(), [call(allowed=False)])]) == []


@pytest.mark.parametrize(
    "resource", [f"{BUCKET}/receipts", f"{BUCKET}/data/receipts/1.json", "arn:aws:s3:::publishedX"]
)
def test_a_call_elsewhere_shows_nothing(resource: str) -> None:
    assert unused([Record(policies(), [call(resource=resource)])]) != []


def test_every_exception_has_a_reason_and_a_statement_of_the_template() -> None:
    roles = resources_of(load_template(), "AWS::IAM::Role")
    statements = {
        (name, statement["Sid"])
        for name, role in roles.items()
        for policy in role["Properties"]["Policies"]
        for statement in statements_of(policy["PolicyDocument"])
    }
    assert {*EXCEPTIONS, *(key[:2] for key in SINGLE_EXCEPTIONS)} <= statements
    assert all([*EXCEPTIONS.values(), *SINGLE_EXCEPTIONS.values()])
