"""Has a landing bucket call the Lambda, and stop calling it when the stack goes.

CloudFormation sets the notification of the bucket that it makes, and leaves it on the bucket that it keeps. S3 refuses
a configuration with two entries for one event and overlapping prefixes, and, by default, one with a destination
that is gone: docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-filtering.html,
docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketNotificationConfiguration.html
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from blocks.aws_errors import aws_error_code


def watch_existing_bucket(s3: Any, functions: Any, stack_name: str, outputs: Mapping[str, str]) -> None:
    """Have the landing bucket call the Lambda for uploads below the prefix. What else it notifies stays, except for
    functions that no longer exist, such as a deleted stack's."""
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
    """Remove the stack's entry from its landing bucket, created by the stack or not; a deleted bucket has none."""

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
    """Return False only if Lambda reports it missing: another account's or team's function may not be looked at."""
    try:
        functions.get_function_configuration(FunctionName=arn)
    except ClientError as error:
        return aws_error_code(error) != "ResourceNotFoundException"
    return True


def _notification_id(stack_name: str) -> str:
    return f"sluice-{stack_name}"
