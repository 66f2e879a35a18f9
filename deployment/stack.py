"""Deploys Sluice: packages, uploads, brings the stack up to date. The same on AWS and in the embedded cloud."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blocks.aws import client_of, meaning_of
from deployment.artifacts import artifact_bucket_name, delete_bucket, upload_artifacts
from deployment.change_sets import Agree, Change, Stack, StackError, StackEvent
from deployment.landing import forget_existing_bucket, watch_existing_bucket
from deployment.packaging import DEFAULT_TIMEOUTS, Artifact, Timeouts, build_artifacts

TEMPLATE = Path(__file__).resolve().parent / "template.yaml"
MAX_STACK_NAME_LENGTH = 32  # the buckets' names begin with it and may have 63 characters

_STACK_NAME = re.compile(rf"[a-z][a-z0-9-]{{0,{MAX_STACK_NAME_LENGTH - 1}}}")
_MAX_TEMPLATE_BODY_BYTES = 51_200  # CloudFormation reads a larger template from S3 only


class StackNameInvalid(StackError):
    """The stack's name cannot begin the names of buckets."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The AWS clients that a deployment uses."""

    cloudformation: Any
    s3: Any
    sts: Any

    @classmethod
    def from_environment(cls) -> Clients:
        """Make them as the environment says: credentials, region and, for the embedded cloud, AWS_ENDPOINT_URL."""
        with _told("connecting to AWS"):
            return cls(client_of("cloudformation"), client_of("s3"), client_of("sts"))


def _show_nothing(_: StackEvent) -> None:
    pass


def _ask_nobody(_: Sequence[Change]) -> bool:
    return True


def deploy_stack(
    clients: Clients,
    *,
    stack_name: str,
    parameters: Mapping[str, str],
    template: Path = TEMPLATE,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    on_event: Callable[[StackEvent], None] = _show_nothing,
    agree_to: Agree = _ask_nobody,
) -> dict[str, str]:
    """Create the stack, or bring it up to date, and return its outputs. Nothing to change is success.

    Args:
        clients: where to deploy.
        stack_name: lower-case letters, digits and hyphens; it begins the names of buckets.
        parameters: the template's, without those of what is packaged here. One that is left out keeps the value
            it has in the stack, or takes its default.
        template: the template's file.
        timeouts: of the state machine and its task.
        on_event: called for every step as it happens.
        agree_to: shown the changes before they are made; False stops the deployment.

    Raises:
        StackError: a subclass for each cause.
        PackageIncomplete: something to upload is missing.
        ArtifactBucketUnusable: the artifact bucket is another account's.
        AwsRefused, AwsUnavailable, AwsCallInvalid: credentials, network or permissions (blocks/aws.py).
    """
    if not _STACK_NAME.fullmatch(stack_name):
        raise StackNameInvalid(
            f"the stack name {stack_name!r} must begin with a letter and hold at most {MAX_STACK_NAME_LENGTH} "
            f"lower-case letters, digits and hyphens"
        )
    with _told(f"deploying the stack {stack_name}"):
        location, packaged = _upload(clients, template, timeouts)
        stack = Stack(clients.cloudformation, stack_name, on_event)
        stack.apply(location, {**parameters, **packaged}, agree_to)
        outputs = stack_outputs(clients, stack_name)
        if outputs.get("LandingBucket", "") not in stack.buckets():
            _watch(clients, stack_name, outputs)
        return outputs


def _watch(clients: Clients, stack_name: str, outputs: Mapping[str, str]) -> None:
    """Have the landing bucket call the Lambda: CloudFormation did it only where the bucket is the stack's own."""
    watch_existing_bucket(
        clients.s3,
        bucket=outputs["LandingBucket"],
        prefix=outputs["IncomingPrefix"],
        function_arn=outputs["TriggerFunctionArn"],
        stack_name=stack_name,
    )


def stack_outputs(clients: Clients, stack_name: str) -> dict[str, str]:
    """Return the outputs of a stack that exists."""
    stack = clients.cloudformation.describe_stacks(StackName=stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def delete_stack(
    clients: Clients,
    *,
    stack_name: str,
    delete_data: bool = False,
    on_event: Callable[[StackEvent], None] = _show_nothing,
) -> tuple[str, ...]:
    """Delete the stack and return the names of its buckets that are left. No such stack is success.

    Args:
        clients: where it is.
        stack_name: its name.
        delete_data: also empty and delete the buckets that the stack made; nothing brings their contents back.
        on_event: called for every step as it happens.

    Raises:
        StackFailed: with the resources that could not be deleted.
        StackBusy: another operation is under way.
        AwsRefused, AwsUnavailable, AwsCallInvalid: credentials, network or permissions (blocks/aws.py).
    """
    with _told(f"deleting the stack {stack_name}"):
        stack = Stack(clients.cloudformation, stack_name, on_event)
        summary = stack.find()
        if summary is None:
            return ()
        buckets = stack.buckets()
        landing_bucket = stack_outputs(clients, stack_name).get("LandingBucket")
        if landing_bucket and landing_bucket not in buckets:
            forget_existing_bucket(clients.s3, bucket=landing_bucket, stack_name=stack_name)
        stack.delete(summary)
        if not delete_data:
            return buckets
        for bucket in buckets:
            delete_bucket(clients.s3, bucket)
        return ()


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Raise what an AWS error means instead of the error itself."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise meaning_of(error, doing) from error


def _upload(clients: Clients, template: Path, timeouts: Timeouts) -> tuple[dict[str, str], dict[str, str]]:
    """Upload what CloudFormation reads from S3; return the template's location and the parameters that name it."""
    account_id = str(clients.sts.get_caller_identity()["Account"])
    region = str(clients.s3.meta.region_name)
    bucket = artifact_bucket_name(account_id, region)
    packaged = build_artifacts(timeouts)
    location, oversized = _template_location(clients.s3, bucket, template.read_bytes())
    upload_artifacts(clients.s3, bucket, [*packaged, *oversized], account_id=account_id, region=region)
    return location, {"ArtifactBucket": bucket, **{one.parameter: one.key for one in packaged}}


def _template_location(s3: Any, bucket: str, body: bytes) -> tuple[dict[str, str], list[Artifact]]:
    if len(body) <= _MAX_TEMPLATE_BODY_BYTES:
        return {"TemplateBody": body.decode()}, []
    key = f"template/{hashlib.sha256(body).hexdigest()[:32]}.yaml"
    return {"TemplateURL": f"{s3.meta.endpoint_url}/{bucket}/{key}"}, [Artifact("", key, body)]
