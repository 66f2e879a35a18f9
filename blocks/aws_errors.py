"""Maps AWS errors to Sluice's errors and to advice, in one table for the pipeline and the commands.

AWS documents the error codes that all services share at docs.aws.amazon.com/general/latest/gr/CommonErrors.html, and
those of S3 at docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from flows.refinery.errors import SluiceError, TerminalError, TransientError


class AwsUnavailable(TransientError):
    """AWS did not respond, throttled the call or had an internal error, even after retries, or other workers changed an
    object at each attempt to write it."""


class RegionUnusable(AwsUnavailable):
    """The region does not exist, or its endpoint cannot be reached from here."""


class AwsRefused(TransientError):
    """AWS rejected the call: missing permission or invalid credentials.

    Transient, because someone can correct the role or renew the credentials, and the upload then succeeds.
    """


class CredentialsMissing(AwsRefused):
    """There are no AWS credentials, or they are incomplete."""


class CredentialsExpired(AwsRefused):
    """The AWS credentials have expired and have to be renewed."""


class CredentialsInvalid(AwsRefused):
    """AWS does not recognize the credentials, or their secret is wrong."""


class ProfileUnknown(AwsRefused):
    """The AWS profile is not configured on this machine."""


class RegionUnset(AwsRefused):
    """No AWS region is set by an option, in the environment's file or in the profile."""


class QuotaReached(TransientError):
    """A service quota of the AWS account has been reached."""


class AwsCallInvalid(TerminalError):
    """AWS rejected the call as invalid: a setting is wrong, or there is a bug in Sluice."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A Sluice error, the AWS error codes and boto3 exceptions that map to it, and what to do about it."""

    meaning: type[SluiceError]
    advice: str
    codes: str = ""
    exceptions: tuple[type[BotoCoreError], ...] = ()


_TABLE = (
    _Row(
        AwsRefused,
        "give the role this permission (the template lists what each role needs), or use other credentials",
        "AccessDenied AccessDeniedException KMS.AccessDeniedException UnauthorizedOperation UnauthorizedAccess 403 "
        "Forbidden",
    ),
    _Row(
        CredentialsMissing,
        "give the task a role; for a command give --profile, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run "
        "`aws sso login`",
        exceptions=(NoCredentialsError, PartialCredentialsError),
    ),
    _Row(
        CredentialsExpired,
        "renew the credentials (`aws sso login`) and try again",
        "ExpiredToken ExpiredTokenException RequestExpired",
        (SSOTokenLoadError, TokenRetrievalError, UnauthorizedSSOTokenError),
    ),
    _Row(
        CredentialsInvalid,
        "check that this is the right profile",
        "InvalidAccessKeyId InvalidClientTokenId SignatureDoesNotMatch UnrecognizedClientException AuthFailure "
        "IncompleteSignature",
    ),
    _Row(ProfileUnknown, "`aws configure list-profiles` shows the profiles", exceptions=(ProfileNotFound,)),
    _Row(
        RegionUnset,
        "give --region, or set a region in the environment's file or in the profile",
        exceptions=(NoRegionError,),
    ),
    _Row(
        RegionUnusable,
        "check the region's name and the network",
        exceptions=(InvalidRegionError, EndpointConnectionError),
    ),
    _Row(
        QuotaReached,
        "request an increase under Service Quotas in the AWS console",
        "LimitExceeded LimitExceededException ServiceQuotaExceededException TooManyBuckets",
    ),
    _Row(
        AwsUnavailable,
        "try again later",
        "SlowDown Throttling ThrottlingException ThrottledException TooManyRequestsException RequestThrottled "
        "RequestLimitExceeded RequestTimeout ServiceUnavailable InternalError InternalFailure "
        "ConditionalRequestConflict OperationAborted",  # S3's responses to concurrent writes
    ),
    _Row(AwsCallInvalid, "compare the settings with the stack's outputs", exceptions=(ParamValidationError,)),
)
_BY_CODE = {code: row for row in _TABLE for code in row.codes.split()}
_BY_MEANING = {row.meaning: row for row in _TABLE}


def aws_error_code(error: Exception) -> str:
    """Return the AWS error code of an exception, or "" if it has none."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def http_status(error: Exception) -> int:
    """Return the HTTP status of AWS's response, or 0 if there was no response."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def explain_aws_error(error: BotoCoreError | ClientError, doing: str) -> SluiceError:
    """Return the Sluice error for an AWS error. The message states what was being done, AWS's error, and what to do.

    Args:
        doing: what the call was for, such as "reading s3://bucket/key".
    """
    row = _row_of(error)
    return row.meaning(f"{doing}: {_reported(error)}; {row.advice}")


@contextmanager
def explaining_aws_errors(doing: str) -> Iterator[None]:
    """Replace an AWS error that is raised in the block with the Sluice error that `explain_aws_error` returns."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise explain_aws_error(error, doing) from error


def _row_of(error: BotoCoreError | ClientError) -> _Row:
    if not isinstance(error, ClientError):
        return next((row for row in _TABLE if isinstance(error, row.exceptions)), _BY_MEANING[AwsUnavailable])
    status = http_status(error)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        meaning: type[SluiceError] = AwsRefused
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        meaning = AwsUnavailable
    else:
        meaning = AwsCallInvalid
    return _BY_CODE.get(aws_error_code(error), _BY_MEANING[meaning])


def _reported(error: BotoCoreError | ClientError) -> str:
    if not isinstance(error, ClientError):
        return f"{type(error).__name__}: {error}"
    message = str(error.response.get("Error", {}).get("Message") or "no message").rstrip(".")
    return f"{error.operation_name}: {aws_error_code(error)} (HTTP {http_status(error)}): {message}"
