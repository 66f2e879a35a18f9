"""The blocks of one stack, which `python -m deployment.prefect_setup register` saves in Prefect.

Where SLUICE_NOTIFY_URL is set, the block for notifications is one of them: Slack for one of its incoming webhooks,
e-mail for sendgrid://KEY:SENDER/RECEIVER/..., otherwise a webhook that gets {"subject", "body"} as JSON. For another
channel create a notification block of that name in Prefect's UI.
"""

import re
from collections.abc import Mapping

from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail, SlackWebhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockTypeUpdate
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from blocks.prefect_names import PrefectNames
from blocks.settings_block import PipelineSettingsBlock

_SENDGRID = re.compile(r"sendgrid://(?P<key>[^:/]+):(?P<sender>[^/]+)/(?P<receivers>.+)")  # as Apprise writes it


def blocks_of(
    names: PrefectNames,
    outputs: Mapping[str, str],
    environment: Mapping[str, str],
    credentials: AwsCredentials | None = None,
) -> dict[str, Block]:
    """Return the blocks of one stack by the names that they are saved under.

    Args:
        names: the stack's names in Prefect.
        outputs: the stack's outputs.
        environment: holds AWS_REGION, AWS_ENDPOINT_URL and SLUICE_NOTIFY_URL, as far as they are set.
        credentials: the stack's AWS Credentials block, if it exists. Keys that a person put into it are kept; without
            keys, boto3 finds the role of the task or the credentials of the worker's machine.

    Raises:
        SettingsMissing: the outputs are not those of a stack of Sluice's.
    """
    credentials = credentials or AwsCredentials()
    credentials.region_name = environment.get("AWS_REGION")
    credentials.aws_client_parameters.endpoint_url = environment.get("AWS_ENDPOINT_URL")
    blocks: dict[str, Block] = {
        names.settings_block: PipelineSettingsBlock.from_outputs(outputs),
        names.credentials_block: credentials,
    }
    notify_url = environment.get("SLUICE_NOTIFY_URL")
    if notify_url:
        blocks[names.notify_block] = notification_block(names.notify_block, notify_url)
    return blocks


def leave_out_icon(kind: type[Block]) -> None:
    """Remove the icon of a type of block, so that Prefect shows its own: the icon comes from the web."""
    with get_client(sync_client=True) as client:
        known = client.read_block_type_by_slug(kind.get_block_type_slug())
        client.update_block_type(known.id, BlockTypeUpdate(logo_url=None))


def notification_block(name: str, url: str) -> Block:
    """Return the block that sends notifications to `url`; it keeps every secret of the address in a secret field."""
    if url.startswith("https://hooks.slack.com/"):
        return SlackWebhook(url=SecretStr(url))
    mail = _SENDGRID.fullmatch(url)
    if mail:
        return SendgridEmail(
            api_key=SecretStr(mail["key"]), sender_email=mail["sender"], to_emails=mail["receivers"].split("/")
        )
    return CustomWebhookNotificationBlock(
        name=name,
        url="{{address}}",
        json_data={"subject": "{{subject}}", "body": "{{body}}"},
        secrets=SecretDict({"address": url}),
    )
