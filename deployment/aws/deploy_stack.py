"""Deploys a stack on AWS or in the local cloud: packages and uploads its artifacts, then creates or updates it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from blocks.aws_errors import explaining_aws_errors
from blocks.limits import Limits
from deployment.aws.artifact_bucket import (
    artifact_bucket_exists,
    artifact_bucket_name,
    delete_bucket,
    upload_artifacts,
)
from deployment.aws.bucket_notification import forget_bucket, watch_existing_bucket
from deployment.aws.packaging import Artifact, Timeouts, artifact, build_artifacts
from deployment.aws.retention import Retentions
from deployment.aws.stack import (
    Agree,
    Change,
    ChangesDeclined,
    ChangesRefused,
    Stack,
    StackError,
    StackEvent,
    outputs_of,
    parameters_of,
)
from deployment.aws.templates import (
    MAX_INLINE_BYTES,
    TemplateUnreadable,
    default_parameters,
    template_body,
    without_texts,
)

TEMPLATE = Path(__file__).resolve().parent / "template.yaml"
MAX_STACK_NAME_LENGTH = 32  # because bucket names, which begin with the stack's name, may have 63 characters

_STACK_NAME = re.compile(rf"[a-z](?:[a-z0-9-]{{0,{MAX_STACK_NAME_LENGTH - 2}}}[a-z0-9])?")


class StackNameInvalid(StackError):
    """The stack's name cannot be used, because the names of the buckets and of the image repository begin with it."""


class TemplateTooLarge(StackError):
    """The template is too large for a dry run without the artifact bucket, which does not exist yet."""


class RetentionElsewhere(StackError):
    """A retention is set for uploads, but the landing bucket was not created by the stack."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The AWS clients that a deployment uses."""

    cloudformation: Any
    s3: Any
    sts: Any
    functions: Any  # the client for Lambda; `lambda` is a reserved word

    @classmethod
    def made_by(cls, client: Callable[[str], Any]) -> Clients:
        """Create clients by calling `client` with the name of each service."""
        return cls(*(client(service) for service in ("cloudformation", "s3", "sts", "lambda")))


def deploy_stack(
    clients: Clients,
    *,
    stack_name: str,
    parameters: Mapping[str, str],
    tags: Mapping[str, str] | None = None,
    retentions: Retentions = {},  # noqa: B006 (only read)
    template: Path = TEMPLATE,
    timeouts: Timeouts | None = None,
    on_event: Callable[[StackEvent], None] = lambda _: None,
    agree_to: Agree = lambda _: True,
    only: Collection[str] | None = None,
) -> dict[str, str]:
    """Create or update the stack, and return its outputs. If nothing has to change, the stack is left as it is. If the
    stack did not create its landing bucket, configure the bucket to invoke the Lambda.

    Args:
        stack_name: lower-case letters, digits and hyphens; bucket names begin with it.
        parameters: the template's parameters, except those for the artifacts that are packaged here. A parameter that
            is omitted keeps its value in the stack or, in a new stack, gets its default.
        tags: the tags of the stack and its resources; if None, existing tags are kept.
        retentions: how long the objects of each dataset are kept.
        timeouts: the timeouts of the state machine and its task; if None, they follow from `parameters`.
        on_event: called for every CloudFormation event as it occurs.
        agree_to: called with the changes before they are made; if it returns False, nothing is changed.
        only: the names of the resources and outputs to create; if None, all are created.

    Raises:
        StackError: the stack could not be deployed, with a subclass for each cause.
        LimitsInconsistent: with these parameters, a file of an allowed size could never be processed.
        PackageIncomplete: a file to upload is missing or invalid.
        ArtifactBucketUnusable: the artifact bucket belongs to another account, or permissions for it are missing.
        AwsRefused, AwsUnavailable: AWS rejected a call, or did not respond; see blocks/aws_errors.py.
    """
    check_stack_name(stack_name)
    with explaining_aws_errors(f"deploying the stack {stack_name}"):
        stack = Stack(clients.cloudformation, stack_name, on_event)
        known = {**parameters_of(stack.find()), **parameters}
        package = _package(clients, stack_name, template, known, retentions, timeouts, only)
        package.upload(clients.s3, tags)
        stack.apply(package.location(clients.s3), {**parameters, **package.parameters}, agree_to, tags)
        outputs = outputs_of(stack.find())
        if outputs.get("LandingBucket", "") not in stack.buckets() and only is None:
            watch_existing_bucket(clients.s3, clients.functions, stack_name, outputs)
        return outputs


def preview_stack(
    clients: Clients,
    *,
    stack_name: str,
    parameters: Mapping[str, str],
    tags: Mapping[str, str] | None = None,
    retentions: Retentions = {},  # noqa: B006 (only read)
    template: Path = TEMPLATE,
    on_upload: Callable[[str], None] = lambda _: None,
) -> list[Change]:
    """Return the changes that `deploy_stack` would make, without changing the stack.

    CloudFormation determines the changes with a change set, which is deleted afterwards. It reads the template from the
    artifact bucket. If that bucket does not exist yet, a shortened template is sent with the call, and nothing is
    uploaded.

    The arguments and errors are those of `deploy_stack`. If the template is uploaded, `on_upload` is called with its S3
    URI.
    """
    changes: list[Change] = []

    def decline(shown: Sequence[Change]) -> bool:
        changes.extend(shown)
        return False

    check_stack_name(stack_name)
    with explaining_aws_errors(f"previewing the changes to the stack {stack_name}"):
        stack = Stack(clients.cloudformation, stack_name, lambda _: None)
        package = _package(clients, stack_name, template, {**parameters_of(stack.find()), **parameters}, retentions)
        location = _preview_location(clients.s3, package, on_upload)
        with suppress(ChangesDeclined):
            stack.apply(location, {**parameters, **package.parameters}, decline, tags)
    return changes


def check_retentions(retentions: Retentions, parameters: Mapping[str, str]) -> None:
    """Raise RetentionElsewhere if a retention is set for uploads, but the stack uses an existing landing bucket."""
    bucket = parameters.get("ExistingLandingBucket", "")
    if bucket and (named := sorted(dataset for dataset, kept in retentions.items() if kept.uploads)):
        raise RetentionElsewhere(
            f"the uploads of {', '.join(named)} are in {bucket}, which does not belong to the stack: remove `uploads` "
            "from `retention`, and add lifecycle rules to that bucket yourself"
        )


def _timeouts_of(template: Path, given: Mapping[str, str]) -> Timeouts:
    """Return the state machine's timeouts for these parameters. Raise LimitsInconsistent if the parameters contradict
    each other."""
    parameters = {**default_parameters(template), **given}
    limits = Limits.of_parameters(parameters)
    limits.check(memory_mib=int(parameters.get("TaskMemory", 2_048)))
    return Timeouts.of(limits)


def _preview_location(s3: Any, package: _Package, on_upload: Callable[[str], None]) -> dict[str, str]:
    if artifact_bucket_exists(s3, package.bucket, account_id=package.account_id):
        replace(package, artifacts=()).upload(s3)
        on_upload(f"s3://{package.bucket}/{package.template.key}")
        return package.location(s3)
    body = without_texts(package.template.body.decode())
    if len(body.encode()) > MAX_INLINE_BYTES:
        raise TemplateTooLarge(
            f"a dry run cannot show the changes before the bucket {package.bucket} exists, because the template is too "
            "large to be sent without it; the first deployment creates the bucket, then asks you to confirm the changes"
        )
    return {"TemplateBody": body}


def check_stack_name(stack_name: str) -> None:
    """Raise StackNameInvalid if the names of buckets and of the image repository cannot begin with this name."""
    if not _STACK_NAME.fullmatch(stack_name):
        raise StackNameInvalid(
            f"the stack name {stack_name!r} is invalid: it must begin with a letter, must not end with a hyphen, and "
            f"may consist of at most {MAX_STACK_NAME_LENGTH} lower-case letters, digits and hyphens"
        )


def delete_stack(
    clients: Clients,
    *,
    stack_name: str,
    delete_data: bool = False,
    on_emptied: Callable[[str, int], None] = lambda _bucket, _count: None,
    on_event: Callable[[StackEvent], None] = lambda _: None,
) -> tuple[str, ...]:
    """Delete the stack, and return the names of its buckets that are kept. If the stack does not exist, do nothing.

    Args:
        delete_data: whether to also delete the buckets that the stack created, with all their contents.
        on_emptied: called with a bucket and the number of object versions deleted in it so far.
        on_event: called for every CloudFormation event as it occurs.

    Raises:
        StackFailed: some resources could not be deleted; the error lists them.
        StackBusy: another operation on the stack is in progress.
        BucketNotEmptied: the stack was deleted, but S3 rejected the deletion of objects in a bucket.
        AwsRefused, AwsUnavailable: AWS rejected a call, or did not respond; see blocks/aws_errors.py.
    """
    with explaining_aws_errors(f"deleting the stack {stack_name}"):
        stack = Stack(clients.cloudformation, stack_name, on_event)
        found = stack.find()
        if found is None:
            return ()
        buckets, outputs = stack.buckets(), outputs_of(found)
        stack.refuse_busy(found)  # checked first, because a stack that is not deleted must keep its notification
        if "LandingBucket" in outputs:
            forget_bucket(clients.s3, stack_name, outputs)
        stack.delete(found)
        if not delete_data:
            return buckets
        for bucket in buckets:
            delete_bucket(clients.s3, bucket, partial(on_emptied, bucket))
        return ()


@dataclass(frozen=True, slots=True)
class _Package:
    """The files that a deployment uploads to the artifact bucket, and the template parameters that name them."""

    account_id: str
    bucket: str
    template: Artifact
    artifacts: tuple[Artifact, ...]

    @property
    def parameters(self) -> dict[str, str]:
        return {"ArtifactBucket": self.bucket, **{one.parameter: one.key for one in self.artifacts}}

    def upload(self, s3: Any, tags: Mapping[str, str] | None = None) -> None:
        region, artifacts = str(s3.meta.region_name), (self.template, *self.artifacts)
        upload_artifacts(s3, self.bucket, artifacts, account_id=self.account_id, region=region, tags=tags or {})

    def location(self, s3: Any) -> dict[str, str]:
        """Return the keyword argument for CloudFormation's calls that names the template's URL."""
        return {"TemplateURL": f"{s3.meta.endpoint_url}/{self.bucket}/{self.template.key}"}


def _package(
    clients: Clients,
    stack_name: str,
    template: Path,
    parameters: Mapping[str, str],
    retentions: Retentions,
    timeouts: Timeouts | None = None,
    only: Collection[str] | None = None,
) -> _Package:
    """Check the parameters, and package the artifacts. Their keys begin with the stack's name, so that a role that may
    deploy one stack (github_role.yaml) cannot change another stack's code."""
    check_retentions(retentions, parameters)
    timeouts = timeouts or _timeouts_of(template, parameters)
    account_id = str(clients.sts.get_caller_identity()["Account"])
    bucket = artifact_bucket_name(account_id, str(clients.s3.meta.region_name))
    try:
        body = template_body(template, only=only, retentions=retentions).encode()
    except TemplateUnreadable as error:
        raise ChangesRefused(f"the template is not valid: {error}") from error
    packaged = (artifact("", "template", "json", body), *build_artifacts(timeouts))
    described, *artifacts = (replace(one, key=f"{stack_name}/{one.key}") for one in packaged)
    return _Package(account_id, bucket, described, tuple(artifacts))
