"""The pipeline's settings as a Prefect block, for runs that a person starts in Prefect."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import boto3
from prefect.blocks.core import Block

from blocks.prefect_names import PrefectNames
from blocks.settings import PipelineSettings, SettingsMissing

if TYPE_CHECKING:
    from prefect_aws import AwsCredentials


class PipelineSettingsBlock(PipelineSettings, Block):
    """The pipeline's settings as a block. Runs that a person starts read the block that is named after their stack."""

    _block_type_name = "Sluice pipeline settings"
    _block_type_slug = "sluice-pipeline-settings"
    _description = (
        "Where uploads come from, where results go, and which limits apply. Runs that a person starts "
        "read the block of their stack; the stack's own tasks read these settings from their environment."
    )


def settings_of_stack(stack: str) -> PipelineSettings:
    """Read a stack's settings from its Prefect block. Raise SettingsMissing if there is no such block."""
    try:
        block = PipelineSettingsBlock.load(PrefectNames(stack).settings_block)
    except ValueError:
        raise SettingsMissing(
            f"there is no settings block named {stack}: a deployment has the name of its stack, and `sluice deploy` "
            "or `sluice up` registers both"
        ) from None
    assert isinstance(block, PipelineSettingsBlock)  # noqa: S101 (load is typed for its asynchronous variant as well)
    return block


def credentials_of_stack(stack: str) -> AwsCredentials | None:
    """Return the stack's AWS Credentials block, or None if there is no such block."""
    from prefect_aws import AwsCredentials  # takes a second

    try:
        block = AwsCredentials.load(PrefectNames(stack).credentials_block)
    except ValueError:
        return None
    assert isinstance(block, AwsCredentials)  # noqa: S101 (load is typed for its asynchronous variant as well)
    return block


def use_credentials_of_stack(stack: str) -> None:
    """Make boto3 use the stack's AWS Credentials block in this process, if there is one and no environment variable
    begins with AWS_.

    On ECS such variables are set and lead to the task's role; a worker elsewhere may have no credentials.
    """
    if any(name.startswith("AWS_") for name in os.environ):
        return
    block = credentials_of_stack(stack)
    if block is None:
        return
    if block.aws_client_parameters.endpoint_url:
        os.environ["AWS_ENDPOINT_URL"] = block.aws_client_parameters.endpoint_url
    boto3.DEFAULT_SESSION = block.get_boto3_session()
