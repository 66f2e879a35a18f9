"""Connects a landing bucket that the stack did not make: CloudFormation cannot set its notification."""

from __future__ import annotations

from typing import Any


def watch_existing_bucket(s3: Any, *, bucket: str, prefix: str, function_arn: str, stack_name: str) -> None:
    """Have the bucket call the Lambda for uploads below `prefix`; its other notifications stay as they are."""
    configuration = _without_ours(s3, bucket, stack_name)
    configuration.setdefault("LambdaFunctionConfigurations", []).append(
        {
            "Id": _notification_id(stack_name),
            "LambdaFunctionArn": function_arn,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
        }
    )
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)


def forget_existing_bucket(s3: Any, *, bucket: str, stack_name: str) -> None:
    """Take our notification away again; a bucket that is gone has none."""
    try:
        configuration = _without_ours(s3, bucket, stack_name)
    except s3.exceptions.NoSuchBucket:
        return
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)


def _without_ours(s3: Any, bucket: str, stack_name: str) -> dict[str, Any]:
    configuration: dict[str, Any] = s3.get_bucket_notification_configuration(Bucket=bucket)
    configuration.pop("ResponseMetadata", None)
    functions = configuration.get("LambdaFunctionConfigurations", [])
    kept = [entry for entry in functions if entry.get("Id") != _notification_id(stack_name)]
    if functions:
        configuration["LambdaFunctionConfigurations"] = kept
    return configuration


def _notification_id(stack_name: str) -> str:
    return f"sluice-{stack_name}"
