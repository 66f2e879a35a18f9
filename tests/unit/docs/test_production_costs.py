"""The cost estimate in docs/production.md is right: products, sums, and the numbers taken from the template."""

from __future__ import annotations

import re

import pytest

from deployment import PROJECT_ROOT
from tests.infra.template import load_template, resources_of

PAGE = (PROJECT_ROOT / "docs" / "production.md").read_text(encoding="utf-8")
_TABLE = re.compile(r"^<!-- cost: (\w+) -->\n\n((?:\|.*\n)+)", re.MULTILINE)
TABLES = {
    name: [line.strip("| ").split(" | ") for line in text.splitlines()[2:]] for name, text in _TABLE.findall(PAGE)
}


def number(text: str) -> float:
    return float(text.replace(",", "").strip("*| "))


def test_there_are_tables() -> None:
    assert set(TABLES) == {"rest", "alone", "together"}


@pytest.mark.parametrize("name", TABLES)
def test_every_product_and_every_sum_is_right(name: str) -> None:
    *rows, total = TABLES[name]
    for what, count, each, dollars in rows:
        assert number(dollars) == pytest.approx(number(count) * number(each), abs=0.0051), what
    assert number(total[-1]) == pytest.approx(sum(number(row[-1]) for row in rows), abs=0.0001)


def test_the_alarms_and_endpoints_are_the_templates() -> None:
    template = load_template()
    assert number(TABLES["rest"][0][1]) == len(resources_of(template, "AWS::CloudWatch::Alarm"))
    endpoints = [one["Condition"] for one in resources_of(template, "AWS::EC2::VPCEndpoint").values()]
    hours, zones, price = 730, 2, 0.01
    assert f"{endpoints.count('ClosedNetwork') * zones * hours * price:.2f}" in PAGE
    assert f"{endpoints.count('EndpointForSecrets') * zones * hours * price:.2f} more" in PAGE
