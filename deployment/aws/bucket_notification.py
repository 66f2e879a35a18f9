"""Connects a landing bucket that the stack did not make: CloudFormation cannot set its notification."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def watch_existing_bucket(s3: Any, stack_name: str, outputs: Mapping[str, str]) -> None:
    """Have the landing bucket call the Lambda for uploads below the prefix; the others stay as they are."""
    ours = {
        "Id": _notification_id(stack_name),
        "LambdaFunctionArn": outputs["TriggerFunctionArn"],
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": outputs["IncomingPrefix"]}]}},
    }
    _replace_ours(s3, outputs["LandingBucket"], stack_name, [ours])


def forget_existing_bucket(s3: Any, stack_name: str, bucket: str) -> None:
    """Take our notification away again; a bucket that is gone has none."""
    with suppress(s3.exceptions.NoSuchBucket):
        _replace_ours(s3, bucket, stack_name, [])


def _replace_ours(s3: Any, bucket: str, stack_name: str, ours: list[dict[str, Any]]) -> None:
    configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
    del configuration["ResponseMetadata"]
    functions = configuration.get("LambdaFunctionConfigurations", [])
    others = [entry for entry in functions if entry.get("Id") != _notification_id(stack_name)]
    configuration["LambdaFunctionConfigurations"] = others + ours
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)


def _notification_id(stack_name: str) -> str:
    return f"sluice-{stack_name}"
