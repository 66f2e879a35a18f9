"""Settings come from the environment or from a stack's outputs, and an error names what is missing or invalid."""

from __future__ import annotations

import pytest

from blocks.settings import STACK_OUTPUTS, PipelineSettings, SettingsMissing

GIVEN = {
    "SLUICE_STACK": "trial",
    "SLUICE_LANDING_BUCKET": "landing",
    "SLUICE_PUBLISHED_BUCKET": "published",
    "SLUICE_QUEUE_URL": "https://queue",
}


def test_the_environment_configures_the_pipeline() -> None:
    settings = PipelineSettings.from_environment({**GIVEN, "SLUICE_VISIBILITY_TIMEOUT_SECONDS": "45"})
    assert (settings.landing_bucket, settings.visibility_timeout_seconds) == ("landing", 45)
    assert settings.incoming_prefix == "incoming/"


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_a_missing_setting_is_named_as_the_variable_to_set(missing: str) -> None:
    environment = {name: value for name, value in GIVEN.items() if name != missing}
    with pytest.raises(SettingsMissing) as error:
        PipelineSettings.from_environment(environment)
    assert error.value.names == (missing,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUICE_VISIBILITY_TIMEOUT_SECONDS", "43201"),
        ("SLUICE_VISIBILITY_TIMEOUT_SECONDS", "soon"),
        ("SLUICE_RECEIVE_WAIT_SECONDS", "21"),
        ("SLUICE_INCOMING_PREFIX", "incoming"),
    ],
)
def test_a_setting_out_of_bounds_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsMissing) as error:
        PipelineSettings.from_environment({**GIVEN, name: value})
    assert error.value.names == (name,)


def test_every_setting_is_described() -> None:
    """Prefect's UI shows the description of each field of the settings block."""
    assert all(field.description for field in PipelineSettings.model_fields.values())


def test_a_stacks_outputs_configure_the_pipeline() -> None:
    settings = PipelineSettings.from_outputs(
        {output: f"{field}/" for field, output in STACK_OUTPUTS.items()} | {"WindowSeconds": "60"}
    )
    assert (settings.landing_bucket, settings.incoming_prefix) == ("landing_bucket/", "incoming_prefix/")
    assert settings.contracts_folder is None, "the folder of the machine that registers the block is not the worker's"


def test_outputs_that_a_stack_lacks_are_named() -> None:
    with pytest.raises(SettingsMissing) as error:
        PipelineSettings.from_outputs({"LandingBucket": "landing"})
    assert "QueueUrl" in error.value.names
    assert "LandingBucket" not in error.value.names
