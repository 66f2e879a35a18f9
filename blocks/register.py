"""Registers the block types and saves this deployment's blocks: the same result however often it runs.

    python -m blocks.register [--stack STACK]

Reads the settings from the stack's outputs, or else from the environment (SLUICE_LANDING_BUCKET,
SLUICE_PUBLISHED_BUCKET, SLUICE_QUEUE_URL, ...), and talks to the Prefect API that PREFECT_API_URL names. Where
SLUICE_NOTIFY_URL is set, the channel for notifications is registered too: Slack for one of its incoming webhooks, mail
for sendgrid://KEY:SENDER/RECEIVER/..., else a webhook that gets {"subject", "body"} as JSON. For another channel make
a notification block named sluice-notify in Prefect's UI.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError
from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail, SlackWebhook
from prefect_aws import AwsCredentials, S3Bucket
from pydantic import SecretStr

from blocks.aws import client_of
from blocks.aws_errors import aws_error_code, explain_aws_error
from blocks.settings import BLOCK_NAME, PipelineSettings, SettingsMissing

NOTIFY_BLOCK_NAME = "sluice-notify"
_SENDGRID = re.compile(r"sendgrid://(?P<key>[^:/]+):(?P<sender>[^/]+)/(?P<receivers>.+)")  # as Apprise writes it


def blocks_of(settings: PipelineSettings, region: str | None) -> dict[str, Block]:
    """Return the blocks of one deployment by the names that they are saved under.

    The credentials hold no key: the task's role, or the environment, gives those.
    """
    credentials = AwsCredentials(region_name=region)
    return {
        BLOCK_NAME: settings,
        f"{BLOCK_NAME}-aws": credentials,
        f"{BLOCK_NAME}-published": S3Bucket(bucket_name=settings.published_bucket, credentials=credentials),
    }


def settings_of_stack(name: str) -> PipelineSettings:
    """Read the settings from the outputs of a deployed stack.

    Raises:
        SettingsMissing: there is no such stack, or it is none of ours.
        AwsRefused, AwsUnavailable: CloudFormation did not answer.
    """
    try:
        (stack,) = client_of("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except (BotoCoreError, ClientError) as error:
        if aws_error_code(error) == "ValidationError":
            raise SettingsMissing(f"there is no stack {name}") from error
        raise explain_aws_error(error, f"reading the stack {name}") from error
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    return PipelineSettings.from_outputs(outputs)


def channel_of(url: str) -> Block:
    """Return the block that notifications go to; whatever of its address is a secret is kept as one."""
    if url.startswith("https://hooks.slack.com/"):
        return SlackWebhook(url=SecretStr(url))
    mail = _SENDGRID.fullmatch(url)
    if mail:
        return SendgridEmail(
            api_key=SecretStr(mail["key"]), sender_email=mail["sender"], to_emails=mail["receivers"].split("/")
        )
    return CustomWebhookNotificationBlock(
        name=NOTIFY_BLOCK_NAME,
        url="{{address}}",
        json_data={"subject": "{{subject}}", "body": "{{body}}"},
        secrets=SecretDict({"address": url}),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Register and save everything; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m blocks.register", description=__doc__)
    parser.add_argument("--stack", help="the stack whose outputs hold the settings (default: the environment)")
    given = parser.parse_args(arguments)
    try:
        settings = settings_of_stack(given.stack) if given.stack else PipelineSettings.from_environment()
    except SettingsMissing as error:
        print(f"{error}. Set these, name a --stack, or run `sluice up`, which does it all.", file=sys.stderr)  # noqa: T201
        return 2
    blocks = blocks_of(settings, os.environ.get("AWS_REGION"))
    notify_url = os.environ.get("SLUICE_NOTIFY_URL")
    if notify_url:
        blocks[NOTIFY_BLOCK_NAME] = channel_of(notify_url)
    for name, block in blocks.items():
        block.save(name, overwrite=True)
        print(f"saved {block.get_block_type_slug()}/{name}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
