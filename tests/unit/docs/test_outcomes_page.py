"""docs/outcomes.md shows the events and metrics that the code emits."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from deployment import PROJECT_ROOT
from flows.pipeline.announce import NAMESPACE, OutcomeStatus, event_of, metric_lines
from flows.refinery.checks import RejectionReason
from tests.unit.flows.pipeline.test_announce import SETTINGS, failed, published, rejected

PAGE = (PROJECT_ROOT / "docs" / "outcomes.md").read_text(encoding="utf-8")
_EXAMPLE = re.compile(r"```json\n(.*?)```", re.DOTALL)


def test_the_page_lists_every_kind_of_event() -> None:
    assert re.findall(r"^\| `(Sluice [^`]*)`", PAGE, re.MULTILINE) == [status.detail_type for status in OutcomeStatus]


def test_the_example_has_the_fields_of_an_event_in_their_order() -> None:
    example: dict[str, Any] = json.loads(_EXAMPLE.findall(PAGE)[0])
    message = "3 of 10 rows (30%) are bad; the contract allows at most 20%"
    reason = RejectionReason(code="bad_rows.max_fraction", message=message)
    event: dict[str, Any] = json.loads(event_of(rejected(reasons=(reason,)), "sluice").detail)
    own = {"bucket", "version_id", "run_id", "receipt_uri"}
    assert list(example) == list(event)
    assert {name: value for name, value in example.items() if name not in own} == {
        name: value for name, value in event.items() if name not in own
    }


def test_the_page_lists_every_metric_with_its_unit() -> None:
    rows = published().rows
    assert rows
    everything = [replace(published(), rows=replace(rows, quarantined=1)), rejected(), failed()]
    directives = [
        line["_aws"]["CloudWatchMetrics"][0] for line in metric_lines(everything, refused=1, settings=SETTINGS)
    ]
    made = {(metric["Name"], metric["Unit"]) for directive in directives for metric in directive["Metrics"]}
    listed = re.findall(r"^\| `(\w+)` \| (Count|Seconds) \|", PAGE, re.MULTILINE)
    assert set(listed) == made
    assert f"namespace is `{NAMESPACE}`" in PAGE
