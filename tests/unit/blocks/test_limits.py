"""The time limits of a stage, an upload, a task, a launch and a drain fit into each other, or they are rejected."""

from __future__ import annotations

import pytest

from blocks.limits import MAX_MESSAGE_SECONDS, Limits, LimitsInconsistent
from blocks.settings import PipelineSettings
from deployment.aws.deploy_stack import TEMPLATE
from deployment.aws.packaging import Timeouts
from deployment.aws.templates import default_parameters

MEMORY = 2_048


def test_each_limit_is_longer_than_the_one_before() -> None:
    limits = Limits()
    limits.check(memory_mib=MEMORY)
    order = [
        limits.stage_seconds,
        limits.upload_seconds,
        limits.task_seconds,
        limits.launch_seconds,
        limits.drain_seconds,
    ]
    assert order == sorted(set(order))
    assert limits.lifetime_seconds + limits.upload_seconds < limits.task_seconds <= MAX_MESSAGE_SECONDS


def test_the_template_and_the_settings_have_the_same_limits_and_the_state_machine_waits_longer() -> None:
    parameters = default_parameters(TEMPLATE)
    fields = PipelineSettings.model_fields
    assert Limits.of_parameters(parameters) == Limits()
    assert Limits(
        *(fields[name].default for name in ("stage_timeout_seconds", "max_task_seconds", "max_object_bytes"))
    ) == (Limits())
    assert Timeouts.of(Limits()).task_seconds > Limits().task_seconds, "a task ends itself first"


@pytest.mark.parametrize(
    ("limits", "memory_mib", "parameters"),
    [
        (Limits(stage_seconds=40_000), MEMORY, ["TaskLifetimeSeconds", "StageTimeoutSeconds"]),
        (Limits(lifetime_seconds=42_000), MEMORY, ["TaskLifetimeSeconds"]),
        (Limits(), 512, ["TaskMemory=1024"]),
    ],
)
def test_inconsistent_limits_are_rejected_with_the_parameters_to_change(
    limits: Limits, memory_mib: int, parameters: list[str]
) -> None:
    with pytest.raises(LimitsInconsistent) as refused:
        limits.check(memory_mib=memory_mib)
    assert all(parameter in str(refused.value) for parameter in parameters)


def test_a_lifetime_that_is_shorter_by_the_excess_is_accepted() -> None:
    limits = Limits(lifetime_seconds=42_000)
    excess = limits.task_seconds - MAX_MESSAGE_SECONDS
    Limits(lifetime_seconds=42_000 - excess).check(memory_mib=MEMORY)


def test_limits_that_a_stack_has_no_parameters_for_are_the_defaults() -> None:
    assert Limits.of_parameters({"TaskMemory": "4096"}) == Limits()
