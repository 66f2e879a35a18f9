"""Which account and region a command works in, with whose credentials, and what AWS's refusals mean to a person.

boto3 reads the environment at many moments, so a command that works on AWS runs inside `aws_environment`: the caller's
own AWS variables, with the profile and the region that were asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from blocks.aws import client_of, code_of, status_of
from deployment.local.environment import only
from flows.refinery.errors import SluiceError, TerminalError, TransientError

# Keys in the environment would win over a profile that was asked for.
_KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")

_EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_INVALID_CODES = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "AuthFailure",
        "IncompleteSignature",
    }
)
_DENIED_CODES = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess", "403", "Forbidden"}
)
_QUOTA_CODES = frozenset({"LimitExceeded", "LimitExceededException", "ServiceQuotaExceededException", "TooManyBuckets"})
_EXPIRED_ERRORS = (SSOTokenLoadError, TokenRetrievalError, UnauthorizedSSOTokenError)
# "User: ARN is not authorized to perform: ACTION on resource: ARN because ..." (every AWS service says it so)
_ACTION = re.compile(r"not authorized to perform:? (?P<action>[a-z0-9-]+:[A-Za-z*]+)")


class CredentialsMissing(TerminalError):
    """There are no AWS credentials: no profile, no keys, no role."""


class CredentialsExpired(TransientError):
    """The AWS credentials were valid once: a session has to be renewed."""


class CredentialsInvalid(TerminalError):
    """AWS does not know the credentials, or their secret is wrong."""


class ProfileUnknown(TerminalError):
    """The AWS profile that was asked for is not configured on this machine."""


class RegionUnset(TerminalError):
    """No AWS region was given: not as an option, not in the environment's file, not by the profile."""


class RegionUnusable(TerminalError):
    """The region does not exist, or cannot be reached from here."""


class PermissionMissing(TransientError):
    """The credentials may not do something that the command needs; the message names the action."""


class QuotaReached(TransientError):
    """A service quota of the account is used up."""


class AwsUnreachable(TransientError):
    """AWS did not answer, or answered with a fault of its own."""


class AwsRefusal(TerminalError):
    """AWS does not accept a call, for a reason that the message quotes."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where a command works.

    Attributes:
        account_id: the account, twelve digits.
        region: the region.
        caller: the ARN of who the credentials are.
        endpoint_url: what answers instead of AWS; "" on AWS.
    """

    account_id: str
    region: str
    caller: str
    endpoint_url: str


def environment_for(users: Mapping[str, str], *, region: str | None, profile: str | None) -> dict[str, str]:
    """Return `users` with the region and the profile that were asked for; what is asked for wins."""
    environment = dict(users)
    if profile:
        environment = {name: value for name, value in environment.items() if name not in _KEY_VARIABLES}
        environment["AWS_PROFILE"] = profile
    if region:
        environment |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    elif "AWS_REGION" in environment:
        # boto3 itself reads AWS_DEFAULT_REGION only; every other AWS tool prefers AWS_REGION.
        environment["AWS_DEFAULT_REGION"] = environment["AWS_REGION"]
    return environment


@contextmanager
def aws_access(users: Mapping[str, str], *, region: str | None, profile: str | None) -> Iterator[Access]:
    """Give the account and the region; inside the block boto3 works there.

    Raises:
        CredentialsMissing, CredentialsExpired, CredentialsInvalid, ProfileUnknown, RegionUnset, RegionUnusable,
        PermissionMissing, AwsUnreachable: before anything was done.
    """
    asked_for = environment_for(users, region=region, profile=profile)
    with _own_session(asked_for), said("asking AWS who we are"):
        chosen = boto3.Session().region_name
        if not chosen:
            raise RegionUnset("no AWS region: give --region, or set one in the environment's file or in the profile")
    with _own_session(asked_for | {"AWS_REGION": chosen, "AWS_DEFAULT_REGION": chosen}):
        with said("asking AWS who we are"):
            identity = client_of("sts").get_caller_identity()
        yield Access(str(identity["Account"]), chosen, str(identity["Arn"]), users.get("AWS_ENDPOINT_URL", ""))


@contextmanager
def _own_session(environment: dict[str, str]) -> Iterator[None]:
    """Make `environment` the one that boto3 reads; it would keep the credentials that it once found."""
    before = boto3.DEFAULT_SESSION
    with only(environment):
        boto3.DEFAULT_SESSION = None
        try:
            yield
        finally:
            boto3.DEFAULT_SESSION = before


@contextmanager
def said(doing: str) -> Iterator[None]:
    """Raise what an AWS error means to a person instead of the error itself."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise told(error, doing) from error


def told(error: BotoCoreError | ClientError, doing: str) -> SluiceError:
    """Return what an AWS error means to a person, and what to do about it.

    Args:
        error: what boto3 raised.
        doing: what was being done, for the message.
    """
    if isinstance(error, ClientError):
        return _told_answer(error, doing)
    if isinstance(error, ProfileNotFound):
        return ProfileUnknown(f"{doing}: {error}; see `aws configure list-profiles`")
    if isinstance(error, _EXPIRED_ERRORS):
        return CredentialsExpired(f"{doing}: the single sign-on session has ended; run `aws sso login` and try again")
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return CredentialsMissing(
            f"{doing}: there are no AWS credentials; give --profile, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run `aws sso login`"
        )
    if isinstance(error, NoRegionError):
        return RegionUnset(f"{doing}: no AWS region; give --region")
    if isinstance(error, InvalidRegionError):
        return RegionUnusable(f"{doing}: {error}")
    if isinstance(error, EndpointConnectionError):
        return RegionUnusable(
            f"{doing}: {error.kwargs.get('endpoint_url')} does not answer: is the region's name right, and is there "
            "a network?"
        )
    return AwsUnreachable(f"{doing}: {type(error).__name__}: {error}")


def _told_answer(error: ClientError, doing: str) -> SluiceError:
    code, status = code_of(error), status_of(error)
    message = str(error.response.get("Error", {}).get("Message", ""))
    if code in _EXPIRED_CODES:
        return CredentialsExpired(f"{doing}: the AWS credentials have expired ({code}); renew them and try again")
    if code in _INVALID_CODES:
        return CredentialsInvalid(f"{doing}: AWS does not accept the credentials ({code}); is it the right profile?")
    if code in _DENIED_CODES or status == 403:
        return PermissionMissing(f"{doing}: these credentials may not {action_of(error)}. AWS says: {message}")
    if code in _QUOTA_CODES:
        return QuotaReached(f"{doing}: a quota of the account is reached ({code}). AWS says: {message}")
    if status >= 500 or status == 429 or code.startswith("Throttling"):
        return AwsUnreachable(f"{doing}: {code} (HTTP {status}); try again")
    return AwsRefusal(f"{doing}: {code}: {message}")


def action_of(error: ClientError) -> str:
    """Return the action that was refused: as AWS names it, else as the call that was made."""
    found = _ACTION.search(str(error.response.get("Error", {}).get("Message", "")))
    return found["action"] if found else error.operation_name
