"""Determines the AWS account, region and credentials that a command uses.

boto3 reads the environment variables whenever it creates a session or a client. Therefore, a command that uses AWS runs
inside `aws_access`, which sets the user's AWS variables and the requested profile and region.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
from botocore.exceptions import NoRegionError

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors
from deployment.environment_variables import only

# These variables would take precedence over a requested profile.
_KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_ASKING = "asking AWS whose credentials these are"


@dataclass(frozen=True, slots=True)
class Access:
    """The account, the region and the identity that a command uses."""

    account_id: str  # twelve digits
    region: str
    caller: str  # the ARN of the user or role to which the credentials belong
    endpoint_url: str  # the emulator's URL; "" on AWS


def environment_for(users: Mapping[str, str], *, region: str | None, profile: str | None) -> dict[str, str]:
    """Return the user's AWS variables, changed to select the requested region and profile."""
    environment = dict(users)
    if profile:
        environment = {name: value for name, value in environment.items() if name not in _KEY_VARIABLES}
        environment["AWS_PROFILE"] = profile
    if region:
        environment |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    elif "AWS_REGION" in environment:
        # boto3 reads only AWS_DEFAULT_REGION; the AWS CLI and other SDKs prefer AWS_REGION.
        environment["AWS_DEFAULT_REGION"] = environment["AWS_REGION"]
    return environment


@contextmanager
def aws_access(users: Mapping[str, str], *, region: str | None, profile: str | None) -> Iterator[Access]:
    """Make boto3 use the requested region and profile while the block runs; yield the resulting account and region.

    Args:
        users: the user's AWS variables, as returned by `stack_options.users_environment`.
        region: the region; None for the region of the profile or the environment.
        profile: the profile; None for the credentials that boto3 finds by itself.

    Raises:
        AwsRefused, AwsUnavailable: the credentials or the region cannot be used, with a subclass for each cause.
    """
    asked_for = environment_for(users, region=region, profile=profile)
    with own_session(asked_for), explaining_aws_errors(_ASKING):
        chosen = boto3.Session().region_name
        if not chosen:
            raise NoRegionError
    with own_session(asked_for | {"AWS_REGION": chosen, "AWS_DEFAULT_REGION": chosen}):
        with explaining_aws_errors(_ASKING):
            identity = client_of("sts").get_caller_identity()
        yield Access(str(identity["Account"]), chosen, str(identity["Arn"]), users.get("AWS_ENDPOINT_URL", ""))


@contextmanager
def own_session(environment: dict[str, str]) -> Iterator[None]:
    """Make boto3 use the variables in `environment` while the block runs. boto3's default session is reset too, because
    it would keep the credentials that it found before."""
    before = boto3.DEFAULT_SESSION
    with only(environment):
        boto3.DEFAULT_SESSION = None
        try:
            yield
        finally:
            boto3.DEFAULT_SESSION = before
