"""A bucket that outlives its stack notifies the function of the current stack. The fake S3 follows two of S3's rules:

docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-filtering.html (no overlapping prefixes for one event)
docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketNotificationConfiguration.html (destinations are validated)
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deployment.aws.bucket_notification import forget_bucket, watch_existing_bucket

BUCKET = "old-landing-1"


def function(name: str) -> str:
    return f"arn:aws:lambda:eu-central-1:123456789012:function:{name}"


def entry(name: str, prefix: str, entry_id: str = "made-by-cloudformation") -> dict[str, Any]:
    return {
        "Id": entry_id,
        "LambdaFunctionArn": function(name),
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
    }


class Functions:
    """Fake Lambda client that has only the given functions, and denies access to the function `forbidden`."""

    def __init__(self, *names: str, forbidden: str = "") -> None:
        self._names, self._forbidden = names, forbidden

    def get_function_configuration(self, *, FunctionName: str) -> dict[str, str]:  # noqa: N803 (boto3's)
        name = FunctionName.rpartition(":")[2]
        if name == self._forbidden:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetFunctionConfiguration")
        if name not in self._names:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetFunctionConfiguration")
        return {"FunctionName": name}


class S3:
    """Fake S3 client with one bucket, which rejects overlapping prefixes and functions that do not exist."""

    class exceptions:  # noqa: N801 (boto3's)
        class NoSuchBucket(Exception): ...

    def __init__(self, functions: Functions, *entries: dict[str, Any]) -> None:
        self._functions = functions
        self.entries = list(entries)

    def get_bucket_notification_configuration(self, *, Bucket: str) -> dict[str, Any]:  # noqa: N803
        assert Bucket == BUCKET
        return {"ResponseMetadata": {}, "LambdaFunctionConfigurations": list(self.entries)}

    def put_bucket_notification_configuration(
        self,
        *,
        Bucket: str,  # noqa: N803
        NotificationConfiguration: dict[str, Any],  # noqa: N803
        SkipDestinationValidation: bool = False,  # noqa: N803
    ) -> None:
        assert Bucket == BUCKET
        entries = NotificationConfiguration["LambdaFunctionConfigurations"]
        prefixes = [one["Filter"]["Key"]["FilterRules"][0]["Value"] for one in entries]
        if any(a.startswith(b) or b.startswith(a) for a, b in combinations(prefixes, 2)):
            raise ClientError({"Error": {"Code": "InvalidArgument", "Message": "ambiguously defined"}}, "Put")
        for one in entries if not SkipDestinationValidation else ():
            self._functions.get_function_configuration(FunctionName=one["LambdaFunctionArn"])
        self.entries = entries


def outputs_of_stack(name: str, prefix: str = "incoming/") -> dict[str, str]:
    return {"LandingBucket": BUCKET, "IncomingPrefix": prefix, "TriggerFunctionArn": function(f"{name}-trigger")}


def watched_by(s3: S3) -> list[str]:
    return [one["LambdaFunctionArn"].rpartition(":")[2] for one in s3.entries]


@pytest.mark.parametrize("prefix", ["incoming/", "other/"])
def test_a_bucket_that_still_calls_a_deleted_stacks_function_can_be_watched_again(prefix: str) -> None:
    functions = Functions("new-trigger")
    s3 = S3(functions, entry("old-trigger", "incoming/"))
    watch_existing_bucket(s3, functions, "new", outputs_of_stack("new", prefix))
    assert watched_by(s3) == ["new-trigger"]


@pytest.mark.parametrize("forbidden", ["", "others"])
def test_functions_that_exist_or_cannot_be_looked_up_are_still_invoked(forbidden: str) -> None:
    functions = Functions("new-trigger", "others", forbidden=forbidden)
    s3 = S3(functions, entry("others", "reports/"))
    for _ in range(2):
        watch_existing_bucket(s3, functions, "new", outputs_of_stack("new"))
    assert watched_by(s3) == ["others", "new-trigger"]


def test_a_deleted_stack_removes_only_its_own_notification_from_its_bucket() -> None:
    """CloudFormation keeps the bucket and its notification for the Lambda function, but deletes the function."""
    functions = Functions("old-trigger")
    s3 = S3(functions, entry("old-trigger", "incoming/"), entry("gone", "reports/"))
    forget_bucket(s3, "old", outputs_of_stack("old"))
    assert watched_by(s3) == ["gone"]
