"""The deployed stack that a command works with: the local cloud's or, with --stack, one on AWS.

with selected_stack(StackSelection(stack, region, profile), state_dir, users) as stack:
    stack.client("s3").list_objects_v2(Bucket=stack.outputs["PublishedBucket"])
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors
from deployment.aws.access import Access, aws_access
from deployment.aws.stack import find_stack
from deployment.prefect_setup.access import PrefectAccess, prefect_access
from deployment.stack_options import StackSelection
from flows.refinery.errors import TerminalError


class StackMissing(TerminalError):
    """There is no stack of this name in this account and region, or its creation never succeeded."""


class DeployedStack(Protocol):
    """A deployed stack, local or on AWS; Endpoints and AwsStack implement it."""

    @property
    def region(self) -> str:
        """The AWS region."""

    @property
    def outputs(self) -> dict[str, str]:
        """The stack's outputs."""

    @property
    def aws_endpoint_url(self) -> str:
        """The address of every AWS service; "" on AWS."""

    @property
    def prefect_api_url(self) -> str:
        """Prefect's API."""

    @property
    def prefect_ui_url(self) -> str:
        """Prefect's pages."""

    @property
    def prefect_headers(self) -> dict[str, str]:
        """What requests to Prefect's API must carry."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that works with this stack."""

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client."""


@dataclass(frozen=True)
class AwsStack:
    """A stack on AWS, or in the emulator at AWS_ENDPOINT_URL.

    Attributes:
        access: account, region and caller.
        stack_name: its name.
        outputs: its outputs.
        parameters: the values of its parameters.
    """

    access: Access
    stack_name: str
    outputs: dict[str, str]
    parameters: dict[str, str]

    @property
    def region(self) -> str:
        """Return the AWS region."""
        return self.access.region

    @property
    def aws_endpoint_url(self) -> str:
        """Return the emulator's address; "" on AWS."""
        return self.access.endpoint_url

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client."""
        return client_of(service, **options)

    @cached_property
    def prefect(self) -> PrefectAccess:
        """Return how to reach the stack's Prefect API; keys missing from the environment come from Secrets Manager.

        Raises:
            AwsRefused: the secret may not be read.
        """
        return prefect_access(self.parameters)

    @property
    def prefect_api_url(self) -> str:
        """Return Prefect's API, as tasks reach it."""
        return self.parameters["PrefectApiUrl"]

    @property
    def prefect_ui_url(self) -> str:
        """Return Prefect's pages."""
        return PrefectAccess(self.prefect_api_url).ui_url

    @property
    def prefect_headers(self) -> dict[str, str]:
        """Return what requests to Prefect's API must carry."""
        return self.prefect.headers

    @property
    def environment(self) -> dict[str, str]:
        """Return this process's environment, with Prefect's address and credentials."""
        return {**os.environ, **self.prefect.environment}


@contextmanager
def selected_stack(selection: StackSelection, state_dir: Path, users: Mapping[str, str]) -> Iterator[DeployedStack]:
    """Give the stack that the options select.

    Args:
        selection: from the options.
        state_dir: the local cloud's state folder.
        users: the user's AWS variables (stack_options.users_environment).

    Raises:
        LocalCloudNotRunning: no local cloud is running, and no stack was selected.
        StackMissing: no such stack.
        AwsRefused, AwsUnavailable: see aws_access.
    """
    if selection.stack is None:
        from deployment.local.running import running_cloud

        yield running_cloud(state_dir)
        return
    with aws_access(users, region=selection.region, profile=selection.profile) as access:
        yield find_aws_stack(access, selection.stack)


def find_aws_stack(access: Access, stack_name: str) -> AwsStack:
    """Return the stack of this name.

    Raises:
        StackMissing: it does not exist, or was never created completely.
        AwsRefused: stacks may not be listed or described.
    """
    cloudformation = client_of("cloudformation")
    with explaining_aws_errors(f"looking for the stack {stack_name}"):
        found = find_stack(cloudformation, stack_name)
        stack = cloudformation.describe_stacks(StackName=found["StackId"])["Stacks"][0] if found else {}
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    if "StateMachineArn" not in outputs:
        state = f"is in {stack['StackStatus']} and has no pipeline yet" if stack else "does not exist"
        raise StackMissing(
            f"the stack {stack_name} {state} in account {access.account_id}, region {access.region}; "
            "make it with: sluice deploy"
        )
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in stack.get("Parameters", [])}
    return AwsStack(access, stack_name, outputs, parameters)
