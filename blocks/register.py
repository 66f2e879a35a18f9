"""Registers the block types and saves this deployment's blocks: the same result however often it runs.

    python -m blocks.register

Reads the settings from the environment (SLUICE_LANDING_BUCKET, SLUICE_PUBLISHED_BUCKET, SLUICE_QUEUE_URL, ...) and
talks to the Prefect API that PREFECT_API_URL names. Where SLUICE_NOTIFY_URL is set, the channel for notifications is
registered too: a Slack webhook when it is one of Slack's, else a webhook that gets {"subject", "body"} as JSON. For
another channel make a notification block named sluice-notify in Prefect's UI.
"""

from __future__ import annotations

import os
import sys

from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect_aws import AwsCredentials, S3Bucket
from pydantic import SecretStr

from blocks.object_store import ObjectStore
from blocks.settings import BLOCK_NAME, PipelineSettings, SettingsMissing
from blocks.upload_queue import UploadQueue

NOTIFY_BLOCK_NAME = "sluice-notify"


def blocks_of(settings: PipelineSettings, region: str | None) -> dict[str, Block]:
    """Return the blocks of one deployment by the names that they are saved under.

    The credentials hold no key: the task's role, or the environment, gives those.
    """
    credentials = AwsCredentials(region_name=region)
    return {
        BLOCK_NAME: settings,
        f"{BLOCK_NAME}-store": ObjectStore(
            landing_bucket=settings.landing_bucket,
            published_bucket=settings.published_bucket,
            max_object_bytes=settings.max_object_bytes,
        ),
        f"{BLOCK_NAME}-queue": UploadQueue(
            queue_url=settings.queue_url, visibility_timeout_seconds=settings.visibility_timeout_seconds
        ),
        f"{BLOCK_NAME}-aws": credentials,
        f"{BLOCK_NAME}-published": S3Bucket(bucket_name=settings.published_bucket, credentials=credentials),
    }


def channel_of(url: str) -> Block:
    """Return the block that notifications go to."""
    if url.startswith("https://hooks.slack.com/"):
        return SlackWebhook(url=SecretStr(url))
    return CustomWebhookNotificationBlock(
        name=NOTIFY_BLOCK_NAME, url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )


def main() -> int:
    """Register and save everything; return the exit code."""
    try:
        settings = PipelineSettings.from_environment()
    except SettingsMissing as error:
        print(f"{error}. Set these, or run `sluice up`, which does it all.", file=sys.stderr)  # noqa: T201
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
