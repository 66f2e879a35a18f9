"""The costs in docs/production.md follow from the recorded counts. Costs and counts are within the promised bounds."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from deployment import PROJECT_ROOT
from tests.benchmarks import prices
from tests.benchmarks.counts import Counts, TaskTimes
from tests.infra.template import defaults_of, load_template, resources_of
from tests.unit.docs.cost_tables import rest

PAGE = (PROJECT_ROOT / "docs" / "production.md").read_text(encoding="utf-8")
ALONE, BURST = Counts.recorded("alone"), Counts.recorded("burst")


def task(seconds: float, busy: float, stay: float = 0.0) -> TaskTimes:
    return TaskTimes(seconds=seconds, busy=busy, stay=stay)


# --- the counts -------------------------------------------------------------------------------------------------------


def test_a_lone_file_takes_one_task_and_few_transitions() -> None:
    assert (ALONE.files, len(ALONE.tasks)) == (1, 1)
    assert ALONE.transitions <= 6


def test_a_burst_takes_few_tasks_transitions_and_starts() -> None:
    assert BURST.files == 1_000
    assert len(BURST.tasks) <= 2 * BURST.asked
    assert BURST.transitions <= 50
    assert BURST.starts / BURST.files <= 0.5


def test_every_upload_is_recorded_in_the_end() -> None:
    assert (ALONE.unrecorded_later, BURST.unrecorded_later) == (0, 0)


def test_a_thousand_files_cost_no_more_than_promised() -> None:
    assert prices.total(prices.bill(ALONE)) <= 1.20
    assert prices.total(prices.bill(BURST)) <= 0.10


# --- the bill ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("billed", "times"),
    [
        (60, task(12, busy=5)),
        (65, task(65, busy=5, stay=55)),  # the pull is part of the time that the task has to stay
        (60 + prices.START_SECONDS, task(60, busy=50)),
        (58 + prices.START_SECONDS, task(60, busy=48, stay=50)),  # the pull takes longer than the task has to stay
    ],
)
def test_a_task_is_billed_from_the_pull_of_its_image_and_for_a_minute_at_least(billed: float, times: TaskTimes) -> None:
    """Fargate bills by the second, from the image's pull to the task's end, and at least a minute.

    See aws.amazon.com/fargate/pricing.
    """
    assert prices.billed_seconds(times) == pytest.approx(billed)


def test_requests_are_billed_by_their_service_and_kind() -> None:
    counts = replace(
        BURST,
        files=1_000,
        aws={"s3:PutObject": 2_000, "s3:GetObject": 3_000, "s3:DeleteObject": 500, "sqs:SendMessage": 1_000},
    )
    lines = {line.what: line for line in prices.bill(counts)}
    assert lines["S3 writes and lists"].dollars == pytest.approx(2_000 * 0.000005)
    assert lines["S3 reads"].dollars == pytest.approx(3_000 * 0.0000004)
    assert lines["SQS requests"].dollars == pytest.approx(1_000 * 0.0000004)


def test_every_counted_request_is_to_a_service_that_is_billed_or_free() -> None:
    """Requests to services in `free` cost nothing; their work, if billed, is part of tasks, transitions and logs."""
    billed = {"s3", "sqs", "events", "states"}
    free = {"ecs", "iam", "logs", "xray", "secretsmanager", "ecr"}
    assert {action.split(":")[0] for action in (*ALONE.aws, *BURST.aws)} <= billed | free


def test_the_prices_of_a_task_are_for_the_templates_size() -> None:
    defaults = defaults_of(load_template(), "Default")
    assert int(defaults["TaskCpu"]) == prices.TASK_VCPUS * 1_024
    assert int(defaults["TaskMemory"]) == prices.TASK_GB * 1_024
    function = load_template()["Resources"]["TriggerFunction"]["Properties"]
    assert function["MemorySize"] == prices.FUNCTION_GB * 1_024
    assert function["Architectures"] == ["arm64"]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_quotas_that_the_page_names_are_enough_for_the_defaults() -> None:
    """A new account may run 6 vCPUs: docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html"""
    defaults = defaults_of(load_template(), "Default")
    vcpus = defaults["MaxConcurrentTasks"] * int(defaults["TaskCpu"]) / 1_024
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \|.*$", PAGE, re.M)
    quotas = {name: int(value) for name, value in rows}
    assert quotas["Fargate On-Demand vCPU resource count (with `UseSpot`, the quota for Spot)"] >= vcpus
    assert quotas["Lambda concurrent executions"] - 10 >= defaults["LambdaReservedConcurrency"]


def test_the_page_counts_the_endpoints_of_the_template() -> None:
    endpoints = [one["Condition"] for one in resources_of(load_template(), "AWS::EC2::VPCEndpoint").values()]
    hours, zones, price = 730, 2, 0.01
    assert f"{endpoints.count('ClosedNetwork') * zones * hours * price:.2f}" in PAGE


def test_the_readme_quotes_the_estimates_of_the_page() -> None:
    at_rest, alone, together = (prices.total(lines) for lines in (rest(), prices.bill(ALONE), prices.bill(BURST)))
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    assert f"${at_rest:.2f} a month when idle, ${alone:.2f} for 1,000 small files" in readme
    assert f"${together:.2f} for 1,000 at once" in readme
