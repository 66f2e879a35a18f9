"""Tests that the comparison of policies with calls finds missing and unused permissions. The last step of `make test`
compares the recorded calls."""

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


def test_an_action_that_is_allowed_and_called_is_no_finding() -> None:
    record = Record(policies(), [call()])
    assert (missing([record]), unused([record])) == ([], [])


def test_an_allowed_action_that_is_never_called_is_found() -> None:
    found = unused([Record(policies(Action=["s3:GetObject", "s3:PutObject"]), [call()])])
    assert [(one.sid, one.action) for one in found] == [("Receipts", "s3:PutObject")]


def test_an_allowed_resource_that_no_call_uses_is_found() -> None:
    found = unused([Record(policies(Resource=[RECEIPTS, f"{BUCKET}/docs/*"]), [call()])])
    assert [one.resource for one in found] == [f"{BUCKET}/docs/*"]


def test_a_call_in_one_stack_counts_for_all_stacks() -> None:
    assert unused([Record(policies(), []), Record(policies(), [call()])]) == []


def test_a_rejected_call_does_not_count_as_a_use() -> None:
    assert unused([Record(policies(), [call(allowed=False)])]) != []


def test_a_call_that_no_policy_allows_is_found() -> None:
    refused = call("s3:DeleteObject", allowed=False)
    assert missing([Record(policies(), [call(), refused])]) == [refused]


def test_a_permission_that_a_test_removed_is_not_missing() -> None:
    assert missing([Record(policies(), [call(allowed=False)])]) == []


@pytest.mark.parametrize(
    "resource", [f"{BUCKET}/receipts", f"{BUCKET}/data/receipts/1.json", "arn:aws:s3:::publishedX"]
)
def test_a_call_on_another_resource_does_not_count_as_a_use(resource: str) -> None:
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
