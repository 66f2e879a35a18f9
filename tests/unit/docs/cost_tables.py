"""Generates the cost tables of docs/production.md from the counts that `make bench-burst RECORD=1` records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.benchmarks import prices
from tests.benchmarks.counts import Counts
from tests.benchmarks.prices import Line
from tests.infra.template import load_template, resources_of

METRICS = 7  # custom metrics of a stack, if everything that they count occurs
DATASET_METRICS = 6


def cost_at_rest() -> str:
    """Return the table of what a month without uploads costs."""
    return _bill(rest())


def cost_alone() -> str:
    """Return the table of what 1,000 files cost if each arrives when no task is running."""
    return _bill(prices.bill(Counts.recorded("alone")))


def cost_together() -> str:
    """Return the table of what 1,000 files cost if all arrive together."""
    return _bill(prices.bill(Counts.recorded("burst")))


def cost_a_month() -> str:
    """Return the table of what a month of 30 days costs for several numbers of files per day."""
    alone, together = (sum(line.dollars for line in prices.bill(Counts.recorded(name))) for name in ("alone", "burst"))
    base = prices.total(rest()) + METRICS * prices.METRIC_MONTH
    cases = (("1,000, each alone", alone), ("1,000, at once", together), ("1,000,000, in bursts", 1_000 * together))
    return _table(
        ("files a day", "dollars a day", "dollars a month, with what costs at rest and the metrics"),
        ((files, f"{dollars:,.2f}", f"{30 * dollars + base:,.2f}") for files, dollars in cases),
    )


def cost_of_metrics() -> str:
    """Return the table of what CloudWatch metrics cost in a month."""
    lines = [
        Line("metrics of the stack", METRICS, prices.METRIC_MONTH),
        Line("with `DatasetMetrics`, for each dataset", DATASET_METRICS, prices.METRIC_MONTH),
    ]
    return _bill(lines, with_total=False)


def quotas() -> str:
    """Return the table of AWS quotas that limit throughput, lowest limit first."""
    met = sorted(prices.quotas(Counts.recorded("burst")), key=lambda quota: quota.files_per_second)
    return _table(
        ("quota", "lowest value", "each file takes", "binds at, files per second", "remark"),
        ((one.name, f"{one.limit:,}", f"{one.each:.2g}", f"{one.files_per_second:,.0f}", one.remark) for one in met),
    )


def rest() -> list[Line]:
    """Return the lines of the bill for a month without uploads."""
    alarms = len(resources_of(load_template(), "AWS::CloudWatch::Alarm"))
    return prices.at_rest(Counts.recorded("sweep"), alarms)


def _bill(lines: Sequence[Line], *, with_total: bool = True) -> str:
    rows = [(line.what, f"{line.count:,.6g}", _price(line.each), f"{line.dollars:,.2f}") for line in lines]
    together = [("**together**", "", "", f"**{prices.total(lines):,.2f}**")] if with_total else []
    return _table(("what", "how many", "each", "dollars"), [*rows, *together])


def _price(dollars: float) -> str:
    """Format a price in dollars without an exponent and without trailing zeros."""
    return f"{dollars:.10f}".rstrip("0").rstrip(".")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
