"""A stack's Prefect blocks are created from its outputs, have descriptions for the UI, and expose no secrets."""

from __future__ import annotations

import pytest
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail, SlackWebhook
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from blocks.prefect_names import PrefectNames
from blocks.settings import STACK_OUTPUTS, PipelineSettings
from blocks.settings_block import PipelineSettingsBlock
from deployment.prefect_setup.blocks import blocks_of, notification_block

TRIAL = PrefectNames("trial")
OUTPUTS = {output: f"{field}/" for field, output in STACK_OUTPUTS.items()} | {"WindowSeconds": "60"}


def test_a_stacks_blocks_have_its_name_and_its_outputs() -> None:
    blocks = blocks_of(TRIAL, OUTPUTS, {"AWS_REGION": "eu-central-1"})
    settings, credentials = blocks["trial"], blocks["sluice-trial-aws"]
    assert set(blocks) == {"trial", "sluice-trial-aws"}
    assert isinstance(settings, PipelineSettings)
    assert settings.landing_bucket == OUTPUTS["LandingBucket"]
    assert isinstance(credentials, AwsCredentials)
    assert credentials.region_name == "eu-central-1"


def test_the_credentials_block_contains_no_access_key() -> None:
    """The key comes from the task's role or from the environment."""
    credentials = blocks_of(TRIAL, OUTPUTS, {})["sluice-trial-aws"]
    assert isinstance(credentials, AwsCredentials)
    assert (credentials.aws_access_key_id, credentials.aws_secret_access_key) == (None, None)


def test_keys_that_a_person_put_into_the_credentials_are_kept() -> None:
    edited = AwsCredentials(aws_access_key_id="AKIA", aws_secret_access_key=SecretStr("s3cret"), region_name="old")
    credentials = blocks_of(TRIAL, OUTPUTS, {"AWS_REGION": "new"}, edited)["sluice-trial-aws"]
    assert isinstance(credentials, AwsCredentials)
    assert (credentials.aws_access_key_id, credentials.region_name) == ("AKIA", "new")


def test_the_settings_are_shown_with_description_and_described_fields() -> None:
    kind = PipelineSettingsBlock._to_block_type()
    assert kind.description
    assert kind.logo_url is None, "a machine without a network shows Prefect's own icon"
    assert "load(" in (kind.code_example or "")
    assert all(PipelineSettingsBlock.model_fields[name].description for name in PipelineSettings.model_fields)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://hooks.slack.com/services/T/B/s3cret", SlackWebhook),
        ("sendgrid://s3cret:sluice@example.com/a@example.com/b@example.com", SendgridEmail),
        ("https://example.com/hook?token=s3cret", CustomWebhookNotificationBlock),
    ],
)
def test_a_notification_block_hides_the_secrets_of_its_url(url: str, kind: type[Block]) -> None:
    channel = notification_block("sluice-notify", url)
    assert type(channel) is kind
    assert "s3cret" not in channel.model_dump_json()
    assert "s3cret" not in repr(channel)


def test_an_email_block_has_every_recipient() -> None:
    channel = notification_block("sluice-notify", "sendgrid://key:sluice@example.com/a@example.com/b@example.com")
    assert isinstance(channel, SendgridEmail)
    assert (channel.sender_email, channel.to_emails) == ("sluice@example.com", ["a@example.com", "b@example.com"])
