"""Each error of AWS becomes the Sluice error for its cause."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    ProfileNotFound,
    SSOTokenLoadError,
)

from blocks.aws_errors import (
    AwsCallInvalid,
    AwsRefused,
    AwsUnavailable,
    CredentialsExpired,
    CredentialsInvalid,
    CredentialsMissing,
    ProfileUnknown,
    QuotaReached,
    RegionUnset,
    RegionUnusable,
    aws_error_code,
    explain_aws_error,
    explaining_aws_errors,
    http_status,
)
from flows.refinery.errors import TransientError


def answer(code: str, status: int, message: str = "") -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (answer("AccessDenied", 403), AwsRefused),
        (answer("SomethingNew", 403), AwsRefused),
        (answer("ExpiredToken", 400), CredentialsExpired),
        (answer("SignatureDoesNotMatch", 403), CredentialsInvalid),
        (answer("LimitExceededException", 400), QuotaReached),
        (answer("Throttling", 400), AwsUnavailable),
        (answer("SomethingNew", 503), AwsUnavailable),
        (answer("SomethingNew", 429), AwsUnavailable),
        (answer("NoSuchBucket", 404), AwsCallInvalid),
        (ClientError({}, "GetObject"), AwsCallInvalid),
        (EndpointConnectionError(endpoint_url="https://s3.eu-centrall-1.amazonaws.com"), RegionUnusable),
        (ConnectTimeoutError(endpoint_url="https://s3.eu-central-1.amazonaws.com"), AwsUnavailable),
        (InvalidRegionError(region_name="eu central 1"), RegionUnusable),
        (NoCredentialsError(), CredentialsMissing),
        (NoRegionError(), RegionUnset),
        (ProfileNotFound(profile="production"), ProfileUnknown),
        (SSOTokenLoadError(profile_name="production", error_msg="expired"), CredentialsExpired),
        (ParamValidationError(report="no bucket has this name"), AwsCallInvalid),
    ],
    ids=lambda value: getattr(value, "__name__", None) or aws_error_code(value) or type(value).__name__,
)
def test_each_aws_error_becomes_the_error_for_its_cause(error: Any, meaning: type[Exception]) -> None:
    assert type(explain_aws_error(error, "reading")) is meaning


def test_errors_that_people_can_correct_outside_the_file_are_transient() -> None:
    refused = (AwsRefused, CredentialsMissing, CredentialsExpired, CredentialsInvalid, ProfileUnknown, RegionUnset)
    assert all(issubclass(meaning, TransientError) for meaning in (*refused, AwsUnavailable, QuotaReached))


def test_the_message_contains_the_action_the_call_and_the_error_of_aws() -> None:
    error = answer("AccessDenied", 403, "not authorized to perform: s3:GetObject.")
    with pytest.raises(AwsRefused) as raised, explaining_aws_errors("reading s3://bucket/key"):
        raise error
    reported = ("reading s3://bucket/key", "GetObject", "AccessDenied", "403", "s3:GetObject")
    assert [value for value in reported if value not in str(raised.value)] == []
    assert raised.value.__cause__ is error
    assert (aws_error_code(error), http_status(error)) == ("AccessDenied", 403)


def test_an_error_that_is_not_from_aws_passes_unchanged() -> None:
    error = ValueError()
    with pytest.raises(ValueError) as raised, explaining_aws_errors("reading"):  # noqa: PT011 (an error of its caller)
        raise error
    assert raised.value is error
    assert (aws_error_code(error), http_status(error)) == ("", 0)
