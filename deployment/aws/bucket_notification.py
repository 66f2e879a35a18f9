"""Configures a landing bucket to invoke the Lambda, and removes that configuration when the stack is deleted.

CloudFormation configures only buckets that it creates, and does not remove the configuration from a bucket that it
retains. S3 rejects a configuration in which two entries for the same event have overlapping prefixes. By default, it
also rejects one with a destination that does not exist:
docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-filtering.html,
docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketNotificationConfiguration.html
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from blocks.aws_errors import aws_error_code


def watch_existing_bucket(s3: Any, functions: Any, stack_name: str, outputs: Mapping[str, str]) -> None:
    """Configure a landing bucket that the stack did not create to invoke the Lambda for uploads below the incoming
    prefix. Other notifications are kept, except those for Lambda functions that no longer exist."""
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
    """Remove the stack's notification from its landing bucket, whether or not the stack created the bucket. If the
    bucket does not exist, do nothing."""

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
    """Return whether a Lambda function exists. Only the error "not found" means that it does not, because the
    credentials might lack the permission to read another team's function."""
    try:
        functions.get_function_configuration(FunctionName=arn)
    except ClientError as error:
        return aws_error_code(error) != "ResourceNotFoundException"
    return True


def _notification_id(stack_name: str) -> str:
    return f"sluice-{stack_name}"
