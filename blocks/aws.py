"""boto3 clients, and what their errors mean: one that may pass, or one that will not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from pydantic import HttpUrl

from flows.refinery.errors import SluiceError, TerminalError, TransientError

_MAX_ATTEMPTS = 5
# What prefect-aws's own blocks show; Prefect takes no logo but from the web.
LOGO_URL = HttpUrl(
    "https://cdn.sanity.io/images/3ugk85nk/production/d74b16fe84ce626345adf235a47008fea2869a60-225x225.png"
)


class AwsUnavailable(TransientError):
    """AWS answered with a throttle or a fault of its own, or did not answer, through all tries of the client."""


class AwsRefused(TransientError):
    """AWS refused a call for want of permission or valid credentials.

    Transient: a role can be mended and credentials renewed, and until then no upload may be given up.
    """


class AwsCallInvalid(TerminalError):
    """AWS does not accept a call as it was made: a setting is wrong, or this is a fault of Sluice."""


_REFUSED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "403",
        "Forbidden",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "KMS.AccessDeniedException",
    }
)
_PASSING = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "RequestThrottled",
        "RequestTimeout",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "InternalError",
        "InternalFailure",
        "ConditionalRequestConflict",
        "OperationAborted",
    }
)


def client_of(service: str, *, read_timeout_seconds: int = 60) -> Any:
    """Return a boto3 client with bounded waits, and retries that back off with jitter."""
    make_client: Callable[..., Any] = boto3.client  # its overloads want literal service names
    return make_client(
        service,
        config=Config(
            connect_timeout=5,
            read_timeout=read_timeout_seconds,
            retries={"mode": "standard", "max_attempts": _MAX_ATTEMPTS},
        ),
    )


def code_of(error: Exception) -> str:
    """Return AWS's error code, or "" when the error is none of AWS's."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error response, or 0."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def meaning_of(error: BotoCoreError | ClientError, doing: str) -> SluiceError:
    """Return what an AWS error means for the caller.

    Args:
        error: what boto3 raised.
        doing: what was being done and on what, for the message ("reading s3://bucket/key").
    """
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return AwsRefused(f"{doing}: no AWS credentials; give the task a role, or set a profile")
    if isinstance(error, ParamValidationError):
        return AwsCallInvalid(f"{doing}: no such name is possible in AWS; compare it with the stack's outputs")
    if not isinstance(error, ClientError):
        return AwsUnavailable(f"{doing}: {type(error).__name__}: {error}")
    code, status = code_of(error), status_of(error)
    if code in _REFUSED or status in (401, 403):
        return AwsRefused(
            f"{doing}: {code}: the role lacks this permission, or its credentials expired; give it the permission (the "
            "template lists what each role needs) or renew them"
        )
    if code in _PASSING or status >= 500 or status == 429:
        return AwsUnavailable(f"{doing}: {code} (HTTP {status}) after {_MAX_ATTEMPTS} attempts; try again later")
    return AwsCallInvalid(
        f"{doing}: {code} (HTTP {status}); compare the buckets and the queue of the settings with the stack's outputs"
    )
