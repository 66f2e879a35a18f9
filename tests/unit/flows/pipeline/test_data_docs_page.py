"""The Data Docs page of a receipt is GX's page with an added section, and escapes all values from users."""

from __future__ import annotations

import html
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.pipeline.data_docs_page import page_of
from flows.pipeline.receipt import Receipt
from flows.refinery.checks import Check, RejectionReason
from flows.refinery.refine import refine_file
from flows.refinery.validate.coercion import to_arrow
from tests.unit.flows.pipeline.receipts import receipt_of, upload
from tests.unit.flows.refinery.tables import a_contract
from tests.unit.flows.refinery.validate.test_expectations_parity import CASES, KINDS, a_table


def text_of(page: str) -> str:
    """Return the visible text of an HTML page."""
    body = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", page[page.index("<body>") :])
    return re.sub(r"\s+", " ", html.unescape(body))


def a_check(**changes: Any) -> Check:
    """Return the check of an expectation that two of the nine evaluated rows do not meet."""
    fields: dict[str, Any] = {
        "rule": "expect_column_values_to_be_between(price)",
        "expectation": "expect_column_values_to_be_between",
        "column": "price",
        "kind": "row",
        "severity": "warning",
        "success": False,
        "rows_evaluated": 9,
        "rows_failing": 2,
        "observed": 0.777778,
        "expected": {"min_value": 1, "max_value": 1000},
    }
    return Check(**{**fields, **changes})


@pytest.fixture(scope="module")
def every_expectation(tmp_path_factory: pytest.TempPathFactory) -> Receipt:
    """Return a receipt that contains a check for every supported expectation."""
    folder = tmp_path_factory.mktemp("docs")
    frame = a_table()
    table = pa.table({name: to_arrow(frame[name], kind) for name, kind in KINDS.items()})
    pq.write_table(table, folder / "rows.parquet")
    informative = [{name: {**arguments, "severity": "info"}} for case in CASES for name, arguments in case.items()]
    contract = a_contract(columns=KINDS, expectations=informative)
    refined = refine_file(folder / "rows.parquet", contract, folder)
    return receipt_of(upload(), checks=tuple(Check(**check.model_dump()) for check in refined.checks))


def test_every_supported_expectation_has_its_sentence_on_the_page(every_expectation: Receipt) -> None:
    shown = text_of(page_of(every_expectation))
    assert f"Evaluated Expectations {len(every_expectation.checks)}" in shown
    passed = sum(check.success for check in every_expectation.checks)
    assert f"Successful Expectations {passed}" in shown
    assert "rendering error" not in shown.lower()
    assert "values must be greater than or equal to 5 and less than or equal to 95" in shown


def test_the_page_shows_how_many_rows_broke_a_rule() -> None:
    shown = text_of(page_of(receipt_of(upload(), checks=(a_check(),))))
    assert "greater than or equal to 1 and less than or equal to 1000" in shown
    assert "2 unexpected values found" in shown
    assert "22.22% of 10 total rows" in shown


def test_the_page_shows_row_counts_outputs_and_checks_that_are_not_from_gx() -> None:
    other = a_check(
        rule="not_a_number(price)", expectation="not_a_number", kind="coercion", rows_evaluated=10, rows_failing=1
    )
    shown = text_of(page_of(receipt_of(upload(), checks=(other,))))
    assert "in the file 10 published 10" in shown
    assert "not_a_number(price) 1 of 10 rows" in shown
    assert "data/orders/" in shown


def test_a_rejected_file_has_a_page_with_the_reason() -> None:
    shown = text_of(page_of(receipt_of(upload(), published=False)))
    assert "Status: Failed" in shown
    assert "the file is empty" in shown


def test_names_from_users_never_become_markup() -> None:
    bad = "<script>alert('\"1\"')</script>"
    message = upload(key=f"incoming/orders/{bad}.csv")
    named = {"column": bad, "rule": f"x({bad})"}
    distinct = "expect_column_distinct_values_to_be_in_set"
    checks = (
        a_check(expectation="expect_column_values_to_be_in_set", **named, expected={"value_set": [bad]}),
        a_check(expectation="expect_column_values_to_match_regex", **named, expected={"regex": bad}),
        a_check(
            expectation=distinct,
            **named,
            kind="table",
            rows_failing=None,
            observed=[bad],
            expected={"value_set": [bad]},
        ),
        a_check(expectation="expect_column_max_to_be_between", **named, rows_failing=None, observed=bad),
        a_check(expectation="expect_compound_columns_to_be_unique", **named, expected={"column_list": [bad, "b"]}),
        a_check(expectation="expect_column_pair_values_to_be_equal", column=f"{bad}, b", expected={}),
        a_check(kind="coercion", **named),
    )
    receipt = receipt_of(message, checks=checks, reasons=(RejectionReason(code=bad, message=bad),))
    page = page_of(receipt)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert not re.search(r"""=\s*["'][^"'>]*alert\('""", page), "a name broke out of an attribute"


def test_the_page_needs_no_other_host_and_no_script(every_expectation: Receipt) -> None:
    page = page_of(every_expectation)
    assert re.findall(r"""(?:src|href|url\()\s*=?\s*["']?(?:https?:)?//""", page) == []
    assert "<script" not in page
    assert "<table" in page


def test_the_page_links_to_the_index_and_to_no_other_page() -> None:
    links = re.findall(r'href="([^"]*\.html)"', page_of(receipt_of(upload(), checks=(a_check(),))))
    assert set(links) == {"index.html"}
