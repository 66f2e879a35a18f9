"""The Great Expectations Data Docs page of one upload, rendered from its receipt. Pure: a receipt in, HTML out.

GX's own renderers make the page, so it looks like every Data Docs page; a separate section shows what GX does not have:
row counts, types, columns, undecodable rows. GX's usual way, a data context with `UpdateDataDocsAction`, renders the
whole site for each upload, which takes minutes after a few hundred uploads.

The page shows no value of the data except what GX shows as observed: aggregates such as a minimum, and the distinct
values of a column when an expectation is about them. It shows no quarantined rows or values.
"""

from __future__ import annotations

import functools
import html
import importlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from flows.pipeline.receipt import Receipt, Status
from flows.refinery.checks import Check
from flows.refinery.validate.gx import gx

MAX_CHECKS = 500
_GX_KINDS = ("row", "table")
_LOOK_ALIKES = str.maketrans("<>\"'&", "‹›”’＆")
_HOME_LINK = "../../../../index.html"  # GX's pages lie four folders deep, ours next to their index


def page_of(receipt: Receipt) -> str:
    """Render the page. Takes about 50 ms; the first page takes longer, because it imports GX's renderers."""
    render = _renderers()
    document = render.ValidationResultsPageRenderer().render(_suite_result(receipt))
    overview = document.sections[0]
    # GX links to a page about the suite. There is none: the contract is a file in the repository.
    overview.content_blocks[0].subheader.string_template["styling"]["params"].pop("expectation_suite_name", None)
    document.sections.insert(1, _rows_section(receipt))
    # GX's templates do not escape the title, and a file's name could contain a script.
    document.page_title = html.escape(document.page_title)
    page: str = _view().render(document, show_how_to_buttons=False)
    return page.replace(f'"{_HOME_LINK}"', '"index.html"')


@functools.cache
def _renderers() -> SimpleNamespace:
    gx()  # sets GX up without analytics and without its log

    def load(module: str, *names: str) -> dict[str, Any]:
        found = importlib.import_module(f"great_expectations.{module}")
        return {name: getattr(found, name) for name in names}

    return SimpleNamespace(
        **load("core.expectation_validation_result", "ExpectationSuiteValidationResult", "ExpectationValidationResult"),
        **load("render.renderer.page_renderer", "ValidationResultsPageRenderer"),
        **load("render.view", "DefaultJinjaPageView"),
        **load("render", "RenderedSectionContent", "RenderedStringTemplateContent", "RenderedTableContent"),
    )


@functools.cache
def _view() -> Any:
    # Cached with its compiled templates: compiling takes three quarters of the time of a page.
    return _renderers().DefaultJinjaPageView()


# --- what GX shows ----------------------------------------------------------------------------------------------------


def _suite_result(receipt: Receipt) -> Any:
    checks = [check for check in receipt.checks if check.kind in _GX_KINDS][:MAX_CHECKS]
    passed = sum(check.success for check in checks)
    source = receipt.source
    return _renderers().ExpectationSuiteValidationResult(
        success=receipt.status is Status.PUBLISHED,
        results=[_result(check, receipt) for check in checks],
        suite_name=receipt.contract.dataset,
        statistics={
            "evaluated_expectations": len(checks),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(checks) - passed,
            "success_percent": 100 * passed / len(checks) if checks else None,
        },
        meta={
            "run_id": {"run_name": receipt.run_id, "run_time": receipt.created_at},
            "great_expectations_version": importlib.import_module("great_expectations").__version__,
            "batch_spec": {
                "data_asset_name": source.key,
                "bucket": source.bucket,
                "version_id": source.version_id,
                "size_bytes": source.size_bytes,
                "attempt": receipt.attempt,
                "contract": receipt.contract.content_hash,
            },
        },
    )


def _result(check: Check, receipt: Receipt) -> Any:
    names = _renderers()
    return names.ExpectationValidationResult(
        success=check.success,
        expectation_config=gx().ExpectationConfiguration(
            type=check.expectation, kwargs=_arguments(check), severity=check.severity
        ),
        result=_counts(check, receipt.rows.rows_in),
        exception_info={"raised_exception": False, "exception_message": None, "exception_traceback": None},
        meta={},
    )


def _arguments(check: Check) -> dict[str, Any]:
    """The expectation's arguments; a receipt keeps the columns apart from them."""
    arguments = dict(check.expected) if isinstance(check.expected, dict) else {}
    if check.column is None or "column_list" in arguments:
        return arguments
    column = _harmless(check.column)
    if "column_pair" in check.expectation:
        first, _, second = column.partition(", ")
        return {"column_A": first, "column_B": second, **arguments}
    return {"column": column, **arguments}


def _harmless(value: Any) -> Any:
    """Names and values of a file for places in which GX escapes nothing: with signs that look like those of markup."""
    if isinstance(value, str):
        return value.translate(_LOOK_ALIKES)
    if isinstance(value, dict):
        return {_harmless(name): _harmless(part) for name, part in value.items()}
    return [_harmless(part) for part in value] if isinstance(value, list) else value


def _counts(check: Check, rows: int) -> dict[str, Any]:
    if check.rows_failing is None:
        return {"observed_value": _harmless(check.observed)}
    judged = check.rows_evaluated or 0
    missing = max(0, rows - judged)
    return {
        "element_count": rows,
        "missing_count": missing,
        "missing_percent": _percent(missing, rows),
        "unexpected_count": check.rows_failing,
        "unexpected_percent": _percent(check.rows_failing, judged),
        "unexpected_percent_total": _percent(check.rows_failing, rows),
        "unexpected_percent_nonmissing": _percent(check.rows_failing, judged),
        "partial_unexpected_list": [],
    }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


# --- what GX does not know --------------------------------------------------------------------------------------------


def _rows_section(receipt: Receipt) -> Any:
    tables = (
        [_table("Why", reasons)] if (reasons := [[reason.code, reason.message] for reason in receipt.reasons]) else []
    )
    tables.append(_table("Rows", list(_row_lines(receipt))))
    others = [check for check in receipt.checks if check.kind not in _GX_KINDS][:MAX_CHECKS]
    if others:
        tables.append(_table("Types, columns and undecodable rows", [_line_of(check) for check in others]))
    if receipt.outputs:
        lines = [[output.kind, output.key, f"{output.rows:,} rows"] for output in receipt.outputs]
        tables.append(_table("Outputs", lines))
    name = "Why it was rejected, and its rows" if receipt.reasons else "Rows"
    return _renderers().RenderedSectionContent(section_name=name, content_blocks=tables)


def _row_lines(receipt: Receipt) -> Iterator[list[str]]:
    rows = receipt.rows
    yield ["in the file", f"{rows.rows_in:,}"]
    yield ["published", f"{rows.published:,}"]
    for rule, count in rows.quarantined.items():
        yield [f"quarantined: {rule}", f"{count:,}"]
    for step, count in rows.dropped.items():
        yield [f"dropped: {step}", f"{count:,}"]


def _line_of(check: Check) -> list[str]:
    counted = "" if check.rows_failing is None else f"{check.rows_failing:,} of {check.rows_evaluated or 0:,} rows"
    return [check.rule, counted]


def _table(title: str, lines: Sequence[Sequence[str]]) -> Any:
    return _renderers().RenderedTableContent(
        content_block_type="table",
        header=_text(title, tag="h6", styling={"classes": ["m-0"]}),
        table=[[_text(cell) for cell in line] for line in lines],
        styling={"classes": ["col-12", "table-responsive", "mt-1"], "body": {"classes": ["table", "table-sm"]}},
    )


def _text(text: str, **template: Any) -> Any:
    """Text in GX's document model. As a parameter it is escaped; in the template itself it would be markup."""
    return _renderers().RenderedStringTemplateContent(
        content_block_type="string_template",
        string_template={"template": "$value", "params": {"value": text}, **template},
    )
