"""The cost estimate in docs/production.md is right: products, sums, and the numbers taken from the template."""

from __future__ import annotations

import re

import pytest

from blocks.settings import PipelineSettings
from deployment import PROJECT_ROOT
from tests.infra.template import defaults_of, load_template, resources_of

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


def test_a_task_for_one_file_is_billed_for_fargates_minute_and_no_more() -> None:
    """aws.amazon.com/fargate/pricing: by the second, from the image's pull to the task's end, and at least a minute."""
    pull_and_start, work = 30, 10
    assert pull_and_start + work + PipelineSettings.model_fields["receive_wait_seconds"].default < 60
    assert number(TABLES["alone"][0][1]) == pytest.approx(1_000 * 60 / 3_600, abs=0.01)


def test_the_page_names_the_quotas_of_a_new_account_that_the_defaults_meet() -> None:
    """docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html (Fargate On-Demand vCPUs: 6)"""
    defaults = defaults_of(load_template(), "Default")
    vcpus = defaults["MaxConcurrentTasks"] * int(defaults["TaskCpu"]) / 1_024
    quotas = {
        row.split(" | ")[0].strip("| "): int(row.split(" | ")[1])
        for row in re.findall(r"^\|.* \| \d+ \|.*$", PAGE, re.M)
    }
    assert quotas["Fargate On-Demand vCPU resource count (with `UseSpot`, the one for Spot)"] >= vcpus
    assert quotas["Lambda concurrent executions"] - 10 >= defaults["LambdaReservedConcurrency"]


def test_the_alarms_and_endpoints_are_the_templates() -> None:
    template = load_template()
    assert number(TABLES["rest"][0][1]) == len(resources_of(template, "AWS::CloudWatch::Alarm"))
    endpoints = [one["Condition"] for one in resources_of(template, "AWS::EC2::VPCEndpoint").values()]
    hours, zones, price = 730, 2, 0.01
    assert f"{endpoints.count('ClosedNetwork') * zones * hours * price:.2f}" in PAGE
