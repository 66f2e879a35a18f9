"""Creates the Prefect blocks of a stack, which `python -m deployment.prefect_setup register` saves.

If SLUICE_NOTIFY_URL is set, one of the blocks sends notifications: to Slack if the URL is that of a Slack webhook, by
e-mail if it has the form sendgrid://KEY:SENDER/RECEIVER/..., and otherwise to a webhook, as JSON with "subject" and
"body". For any other channel, create a notification block with the same name in Prefect's UI.
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
    """Return the blocks of a stack, by the names under which they are saved.

    Args:
        environment: environment variables, of which AWS_REGION, AWS_ENDPOINT_URL and SLUICE_NOTIFY_URL are used if set.
        credentials: the stack's existing AWS Credentials block, or None. Keys that a user entered in it are kept. If it
            has none, boto3 uses the task's role or the credentials on the worker's machine.

    Raises:
        SettingsMissing: the outputs are not those of a Sluice stack.
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
    """Remove the icon of a block type, so that Prefect's UI shows its default icon instead of loading one from the
    internet."""
    with get_client(sync_client=True) as client:
        known = client.read_block_type_by_slug(kind.get_block_type_slug())
        client.update_block_type(known.id, BlockTypeUpdate(logo_url=None))


def notification_block(name: str, url: str) -> Block:
    """Return the block that sends notifications to `url`. Secrets in the URL are stored in secret fields."""
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
