"""The blocks of one deployment: from the stack's outputs, described for the UI, and without a secret in the open."""

from __future__ import annotations

import pytest
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail, SlackWebhook

from blocks.register import blocks_of, channel_of
from blocks.settings import PipelineSettings

SETTINGS = PipelineSettings(landing_bucket="landing", published_bucket="published", queue_url="https://queue")
OWN = (PipelineSettings,)


def test_the_blocks_of_a_deployment_agree_with_its_settings() -> None:
    blocks = blocks_of(SETTINGS, "eu-central-1")
    assert set(blocks) == {"sluice", "sluice-aws", "sluice-published"}
    assert blocks["sluice-published"].bucket_name == "published"  # type: ignore[attr-defined]
    assert blocks["sluice-aws"].region_name == "eu-central-1"  # type: ignore[attr-defined]


def test_no_block_of_a_deployment_holds_a_key() -> None:
    """The task's role, or the environment, gives credentials."""
    credentials = blocks_of(SETTINGS, None)["sluice-aws"]
    assert credentials.aws_access_key_id is None  # type: ignore[attr-defined]
    assert credentials.aws_secret_access_key is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", OWN, ids=lambda block: block.__name__)
def test_a_block_type_is_shown_with_description_logo_and_described_fields(block: type[Block]) -> None:
    kind = block._to_block_type()
    assert kind.description
    assert str(kind.logo_url).startswith("https://")
    assert "load(" in (kind.code_example or "")
    assert all(field.description for field in block.model_fields.values())


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://hooks.slack.com/services/T/B/s3cret", SlackWebhook),
        ("sendgrid://s3cret:sluice@example.com/a@example.com/b@example.com", SendgridEmail),
        ("https://example.com/hook?token=s3cret", CustomWebhookNotificationBlock),
    ],
)
def test_a_channel_keeps_what_is_secret_of_its_address(url: str, kind: type[Block]) -> None:
    channel = channel_of(url)
    assert type(channel) is kind
    assert "s3cret" not in channel.model_dump_json()
    assert "s3cret" not in repr(channel)


def test_mail_goes_to_every_receiver() -> None:
    channel = channel_of("sendgrid://key:sluice@example.com/a@example.com/b@example.com")
    assert isinstance(channel, SendgridEmail)
    assert (channel.sender_email, channel.to_emails) == ("sluice@example.com", ["a@example.com", "b@example.com"])
