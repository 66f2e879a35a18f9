"""The receipt notes if a value in a folder of the object key, such as dt=2024-01-31/, is not published."""

from __future__ import annotations

from flows.pipeline.receipt import Status
from tests.unit.flows.conftest import Account


def test_folders_that_the_contract_does_not_keep_are_noted_in_the_receipt(account: Account) -> None:
    receipt = account.process(account.upload("incoming/other/dt=2024-01-31/x.csv", b"id,v\n1,2\n"))
    assert receipt.status is Status.PUBLISHED
    (check,) = [check for check in receipt.checks if check.rule == "path_columns"]
    assert (check.severity, check.observed, check.expected) == ("info", ["dt"], "path_columns: [dt]")


def test_a_key_without_such_folders_gets_no_note(account: Account) -> None:
    receipt = account.process(account.upload("incoming/other/2024/x.csv", b"id,v\n1,2\n"))
    assert "path_columns" not in {check.rule for check in receipt.checks}
