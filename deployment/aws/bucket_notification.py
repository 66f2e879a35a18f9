"""Configures a landing bucket to invoke the Lambda, and removes that configuration when the stack is deleted.

CloudFormation configures only a bucket that it creates, and does not remove the configuration from a bucket that it
retains. S3 refuses a configuration with two entries for one event and overlapping prefixes, and, by default, one with a
destination that does not exist: docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-filtering.html,
docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketNotificationConfiguration.html
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from blocks.aws_errors import aws_error_code


def watch_existing_bucket(s3: Any, functions: Any, stack_name: str, outputs: Mapping[str, str]) -> None:
    """Configure an existing landing bucket to invoke the Lambda for uploads below the incoming prefix. Other
    notifications stay, except those to Lambda functions that no longer exist, such as a deleted stack's."""
    ours = {
        "Id": _notification_id(stack_name),
        "LambdaFunctionArn": outputs["TriggerFunctionArn"],
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": outputs["IncomingPrefix"]}]}},
    }

    def stays(entry: Mapping[str, Any]) -> bool:
        return entry.get("Id") != ours["Id"] and _exists(functions, entry["LambdaFunctionArn"])

    _replace(s3, outputs["LandingBucket"], stays, [ours])


def forget_bucket(s3: Any, stack_name: str, outputs: Mapping[str, str]) -> None:
    """Remove the stack's notification from its landing bucket, whether or not the stack created the bucket. It is no
    error if the bucket does not exist."""

    def stays(entry: Mapping[str, Any]) -> bool:
        ours = (_notification_id(stack_name), outputs.get("TriggerFunctionArn"))
        return entry.get("Id") != ours[0] and entry["LambdaFunctionArn"] != ours[1]

    with suppress(s3.exceptions.NoSuchBucket):
        _replace(s3, outputs["LandingBucket"], stays, [])


def _replace(s3: Any, bucket: str, stays: Callable[[Mapping[str, Any]], bool], ours: list[dict[str, Any]]) -> None:
    configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
    del configuration["ResponseMetadata"]
    entries = configuration.get("LambdaFunctionConfigurations", [])
    configuration["LambdaFunctionConfigurations"] = [entry for entry in entries if stays(entry)] + ours
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration=configuration, SkipDestinationValidation=True
    )


def _exists(functions: Any, arn: str) -> bool:
    """Return whether a function exists. Any other error than "not found" counts as yes: these credentials may not be
    allowed to look at another team's function."""
    try:
        functions.get_function_configuration(FunctionName=arn)
    except ClientError as error:
        return aws_error_code(error) != "ResourceNotFoundException"
    return True


def _notification_id(stack_name: str) -> str:
    return f"sluice-{stack_name}"
