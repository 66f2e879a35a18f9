"""Connects to the deployed stack that a command uses: the local cloud's or, with --stack, one on AWS.

with selected_stack(StackSelection(stack, region, profile), state_dir, users) as stack:
    stack.client("s3").list_objects_v2(Bucket=stack.outputs["PublishedBucket"])
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors
from blocks.drains import Drains
from blocks.object_store import ObjectStore
from blocks.settings import STACK_OUTPUTS
from deployment.aws.access import Access, aws_access
from deployment.aws.stack import find_stack, outputs_of, parameters_of
from deployment.local.endpoints import Endpoints
from deployment.local.running import running_cloud
from deployment.prefect_setup.access import PrefectAccess, prefect_access
from deployment.stack_options import StackSelection
from flows.refinery.errors import TerminalError


class StackMissing(TerminalError):
    """There is no stack with this name in this account and region, or its creation never succeeded."""


class StackOutdated(TerminalError):
    """The stack was deployed by a different release of Sluice, so it lacks outputs that this release needs."""


@dataclass(frozen=True)
class AwsStack:
    """A stack on AWS, or in an AWS emulator if AWS_ENDPOINT_URL is set."""

    region: str
    aws_endpoint_url: str  # the emulator's URL; "" on AWS
    stack_name: str
    outputs: dict[str, str]
    parameters: dict[str, str]

    client = staticmethod(client_of)

    @property
    def prefect_api_url(self) -> str:
        """Return the URL at which tasks reach Prefect's API."""
        return self.parameters["PrefectApiUrl"]

    @property
    def prefect_ui_url(self) -> str:
        return PrefectAccess(self.prefect_api_url).ui_url

    @property
    def environment(self) -> dict[str, str]:
        """Return this process's environment variables, with Prefect's URL and credentials added. Credentials that are
        not in the environment are read from Secrets Manager, which may raise AwsRefused."""
        return {**os.environ, **prefect_access(self.parameters).environment}

    @property
    def task_environment(self) -> dict[str, str]:
        """Return the environment variables for processing an upload on this machine, with the caller's credentials."""
        return self.environment


DeployedStack: TypeAlias = Endpoints | AwsStack
"""A deployed stack, local or on AWS."""


def drains_of(stack: DeployedStack) -> Drains:
    """Return the object that starts a stack's drains, which are Step Functions executions that empty its queue."""
    return Drains(
        state_machine_arn=stack.outputs["StateMachineArn"],
        queue_url=stack.outputs["QueueUrl"],
        published_bucket=stack.outputs["PublishedBucket"],
        window_seconds=int(stack.outputs["WindowSeconds"]),
        client=stack.client,
    )


def store_of(stack: DeployedStack) -> ObjectStore:
    """Return a store for a stack's landing and published buckets."""
    return ObjectStore(stack.outputs["LandingBucket"], stack.outputs["PublishedBucket"], client=stack.client("s3"))


@contextmanager
def selected_stack(selection: StackSelection, state_dir: Path, users: Mapping[str, str]) -> Iterator[DeployedStack]:
    """Connect to the stack that the options --stack, --region and --profile select.

    Args:
        selection: the values of these options.
        state_dir: the local cloud's state folder.
        users: the user's AWS variables, as returned by `stack_options.users_environment`.

    Raises:
        LocalCloudNotRunning: no stack was selected, and no local cloud is running.
        StackMissing, StackOutdated: see find_aws_stack.
        AwsRefused, AwsUnavailable: see aws_access.
    """
    if selection.stack is None:
        yield running_cloud(state_dir)
        return
    with aws_access(users, region=selection.region, profile=selection.profile) as access:
        yield find_aws_stack(access, selection.stack)


def find_aws_stack(access: Access, stack_name: str) -> AwsStack:
    """Return the stack with this name.

    Raises:
        StackMissing: the stack does not exist, or was never created completely.
        StackOutdated: the stack was deployed by a different release.
        AwsRefused: the credentials lack the permission to describe stacks.
    """
    with explaining_aws_errors(f"looking for the stack {stack_name}"):
        stack = find_stack(client_of("cloudformation"), stack_name)
    outputs = outputs_of(stack)
    if "StateMachineArn" not in outputs:
        state = f"is in {stack['StackStatus']} and has no pipeline yet" if stack else "does not exist"
        raise StackMissing(
            f"the stack {stack_name} {state} in account {access.account_id}, region {access.region}; "
            "create it with: sluice deploy"
        )
    if missing := [output for output in STACK_OUTPUTS.values() if output not in outputs]:
        raise StackOutdated(
            f"the stack {stack_name} was deployed by a different release (it lacks {', '.join(missing)}); update it "
            "with: sluice deploy"
        )
    return AwsStack(access.region, access.endpoint_url, stack_name, outputs, parameters_of(stack))
