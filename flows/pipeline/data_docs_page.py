"""Renders the Great Expectations Data Docs page of an upload from its receipt, as HTML and without any I/O.

GX's own renderers create the page, so it looks like any other Data Docs page. An additional section shows what GX does
not cover: row counts, types, columns and undecodable rows. The usual way, a GX data context with
`UpdateDataDocsAction`, would render the whole site for each upload, which takes minutes after a few hundred uploads.

The page shows no values from the data except those that GX shows as observed: aggregates such as a minimum, and the
distinct values of a column if an expectation is about them. It shows no quarantined rows or values.
"""

import functools
import html
import re
from collections.abc import Sequence
from typing import Any

from flows.pipeline.receipt import Receipt, Status
from flows.refinery.checks import Check
from flows.refinery.validate.gx import gx

MAX_CHECKS = 500
_GX_KINDS = ("row", "table")
_LOOK_ALIKES = str.maketrans("<>\"'&", "‹›”’＆")
# GX's pages load style sheets and scripts from eight hosts and a logo that tracks readers, and end with an
# advertisement.
_FROM_OUTSIDE = re.compile(r"<(script|style|footer)\b.*?</\1>|<(?:link|img)\b[^>]*>", re.DOTALL)
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem 2rem; color: #222; background: #fff }
.container-fluid > .row { display: flex; gap: 2rem }
.container-fluid > .row > :first-child { flex: 0 0 14rem }
h1, h2, h3, h4, h5 { margin: 1rem 0 .4rem; font-size: 110% }
ol, ul { padding-left: 1.2rem }
ol.breadcrumb { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem }
.breadcrumb-item + ::before { content: "/ " }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #ddd }
td { overflow-wrap: anywhere }
.badge { background: #eee; border-radius: .3rem; padding: 0 .3rem; font-size: 90% }
.text-success { color: #146c2e }
.text-danger { color: #a4262c }
.fa-check-circle::before { content: "✓" }
.fa-times::before { content: "✗" }
.fa-exclamation-triangle::before { content: "⚠" }
button, .modal, .cooltip .top, a[data-toggle], .sticky > .card:first-of-type { display: none }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #1b1b1b }
  td, th { border-color: #444 }
  a { color: #8ab4f8 }
  .badge { background: #333 }
}
"""
_HOME_LINK = "../../../../index.html"  # GX's pages are four folders deep; ours are in the same folder as their index


def page_of(receipt: Receipt) -> str:
    """Return a receipt's Data Docs page as HTML. This takes about 50 ms, and longer the first time, because GX's
    renderers are imported then."""
    renderer, view = _renderers()
    document = renderer.render(_suite_result(receipt))
    overview = document.sections[0]
    # Remove GX's link to a page about the expectation suite: there is no such page.
    overview.content_blocks[0].subheader.string_template["styling"]["params"].pop("expectation_suite_name", None)
    document.sections.insert(1, _rows_section(receipt))
    # GX's templates do not escape the title, and a file's name could contain a script.
    document.page_title = html.escape(document.page_title)
    page: str = view.render(document, show_how_to_buttons=False)
    page = _FROM_OUTSIDE.sub("", page).replace("</head>", f"<style>{_STYLE}</style></head>", 1)
    return page.replace(f'"{_HOME_LINK}"', '"index.html"')


@functools.cache
def _renderers() -> tuple[Any, Any]:
    # Cache them with their compiled templates, because compiling takes three quarters of a page's rendering time.
    gx()  # configures GX without analytics and without its log
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    return ValidationResultsPageRenderer(), DefaultJinjaPageView()


# --- what GX shows ----------------------------------------------------------------------------------------------------


def _suite_result(receipt: Receipt) -> Any:
    import great_expectations
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult

    checks = [check for check in receipt.checks if check.kind in _GX_KINDS][:MAX_CHECKS]
    passed = sum(check.success for check in checks)
    source = receipt.source
    return ExpectationSuiteValidationResult(
        success=receipt.status is Status.PUBLISHED,
        results=[_result(check, receipt.rows.rows_in) for check in checks],
        suite_name=receipt.contract.dataset,
        statistics={
            "evaluated_expectations": len(checks),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(checks) - passed,
            "success_percent": 100 * passed / len(checks) if checks else None,
        },
        meta={
            "run_id": {"run_name": receipt.run_id, "run_time": receipt.created_at},
            "great_expectations_version": great_expectations.__version__,
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


def _result(check: Check, rows: int) -> Any:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult

    return ExpectationValidationResult(
        success=check.success,
        expectation_config=gx().ExpectationConfiguration(
            type=check.expectation, kwargs=_arguments(check), severity=check.severity
        ),
        result=_counts(check, rows),
        exception_info={"raised_exception": False, "exception_message": None, "exception_traceback": None},
        meta={},
    )


def _arguments(check: Check) -> dict[str, Any]:
    """Return an expectation's arguments, including its column names, which a receipt stores separately."""
    arguments = dict(check.expected) if isinstance(check.expected, dict) else {}
    if check.column is None or "column_list" in arguments:
        return arguments
    column = _harmless(check.column)
    if "column_pair" in check.expectation:
        first, _, second = column.partition(", ")
        return {"column_A": first, "column_B": second, **arguments}
    return {"column": column, **arguments}


def _harmless(value: Any) -> Any:
    """Replace markup characters with look-alikes in names and values from a file, because GX does not escape them."""
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


# --- what GX does not cover, as blocks of its document model ----------------------------------------------------------


def _rows_section(receipt: Receipt) -> dict[str, Any]:
    rows = receipt.rows
    others = [check for check in receipt.checks if check.kind not in _GX_KINDS][:MAX_CHECKS]
    tables: dict[str, list[tuple[str, ...]]] = {
        "Why": [(reason.code, reason.message) for reason in receipt.reasons],
        "Rows": [
            ("in the file", f"{rows.rows_in:,}"),
            ("published", f"{rows.published:,}"),
            *((f"quarantined: {rule}", f"{count:,}") for rule, count in rows.quarantined.items()),
            *((f"dropped: {step}", f"{count:,}") for step, count in rows.dropped.items()),
        ],
        "Types, columns and undecodable rows": [(check.rule, _failing_rows(check)) for check in others],
        "Outputs": [(output.kind, output.key, f"{output.rows:,} rows") for output in receipt.outputs],
    }
    return {
        "section_name": "Why it was rejected, and its rows" if receipt.reasons else "Rows",
        "content_blocks": [_table(title, lines) for title, lines in tables.items() if lines],
    }


def _failing_rows(check: Check) -> str:
    return "" if check.rows_failing is None else f"{check.rows_failing:,} of {check.rows_evaluated or 0:,} rows"


def _table(title: str, lines: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    return {
        "content_block_type": "table",
        "header": _text(title, tag="h6", styling={"classes": ["m-0"]}),
        "table": [[_text(cell) for cell in line] for line in lines],
        "styling": {"classes": ["col-12", "table-responsive", "mt-1"], "body": {"classes": ["table", "table-sm"]}},
    }


def _text(text: str, **template: Any) -> dict[str, Any]:
    """Return a string as a block of GX's document model. It is passed as a parameter, because GX escapes parameters but
    not templates."""
    return {
        "content_block_type": "string_template",
        "string_template": {"template": "$value", "params": {"value": text}, **template},
    }
