"""Creates and fills the artifact bucket, from which CloudFormation reads the template, the Lambda's code and the state
machine's definition, and deletes buckets with their contents."""

import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from botocore.exceptions import ClientError

from blocks.aws_errors import http_status
from deployment.aws.packaging import Artifact
from flows.refinery.errors import TerminalError

_DEFAULT_REGION = "us-east-1"  # the only region that must not be specified when a bucket is created


class ArtifactBucketUnusable(TerminalError):
    """The artifact bucket belongs to another account, or the credentials lack permissions for it."""


class BucketNotEmptied(TerminalError):
    """S3 rejected the deletion of objects in a bucket that should be deleted with its contents."""


def artifact_bucket_name(account_id: str, region: str) -> str:
    """Return the name of the artifact bucket, which all stacks in an account and region share."""
    return f"sluice-artifacts-{account_id}-{region}"


def upload_artifacts(
    s3: Any,
    bucket: str,
    artifacts: Iterable[Artifact],
    *,
    account_id: str,
    region: str,
    tags: Mapping[str, str] = {},
) -> None:
    """Upload `artifacts` to the bucket; if it does not exist, create it with `tags`. Raise ArtifactBucketUnusable if
    the bucket belongs to another account, or if the credentials lack s3:ListBucket for it."""
    if not artifact_bucket_exists(s3, bucket, account_id=account_id):
        _make_bucket(s3, bucket, region, tags)
    for artifact in artifacts:
        s3.put_object(Bucket=bucket, Key=artifact.key, Body=artifact.body, ExpectedBucketOwner=account_id)


def artifact_bucket_exists(s3: Any, bucket: str, *, account_id: str) -> bool:
    """Return whether the account's artifact bucket exists. Raise ArtifactBucketUnusable if the bucket belongs to
    another account, or if the credentials lack s3:ListBucket for it."""
    try:
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=account_id)
    except ClientError as error:
        if http_status(error) == HTTPStatus.NOT_FOUND:
            return False
        if http_status(error) == HTTPStatus.FORBIDDEN:
            raise ArtifactBucketUnusable(
                f"the bucket {bucket} belongs to another account, or the credentials lack permissions for it; "
                "they need s3:CreateBucket, s3:ListBucket and s3:PutObject on it"
            ) from error
        raise
    return True


def _make_bucket(s3: Any, bucket: str, region: str, tags: Mapping[str, str]) -> None:
    """Create the artifact bucket, which rejects requests without TLS. S3 itself encrypts new buckets and blocks public
    access to them."""
    options = {} if region == _DEFAULT_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        s3.create_bucket(Bucket=bucket, **options)
    except s3.exceptions.BucketAlreadyExists as error:
        raise ArtifactBucketUnusable(f"the bucket name {bucket} is taken by another account") from error
    except s3.exceptions.BucketAlreadyOwnedByYou:
        pass  # another deployment has just created it
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(_tls_only(bucket, s3.meta.partition)))
    if tags:
        tag_set = [{"Key": name, "Value": value} for name, value in sorted(tags.items())]
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tag_set})


def _tls_only(bucket: str, partition: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [f"arn:{partition}:s3:::{bucket}", f"arn:{partition}:s3:::{bucket}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def delete_bucket(s3: Any, bucket: str, on_deleted: Callable[[int], None] = lambda _: None) -> None:
    """Delete a bucket with every version of every object in it. If the bucket does not exist, do nothing.

    Args:
        s3: a boto3 client for S3.
        on_deleted: called after each page with the number of object versions deleted so far.

    Raises:
        BucketNotEmptied: S3 rejected the deletion of objects, because of an object lock or a missing permission.
    """
    deleted = 0
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            versions = [
                {"Key": one["Key"], "VersionId": one["VersionId"]}
                for one in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
            ]
            if versions:
                answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": versions, "Quiet": True})
                if errors := answer.get("Errors"):
                    raise BucketNotEmptied(
                        f"{len(errors)} object versions in {bucket} could not be deleted: {errors[0].get('Code')}: "
                        f"{errors[0].get('Message', '')}"
                    )
                deleted += len(versions)
                on_deleted(deleted)
        s3.delete_bucket(Bucket=bucket)
    except s3.exceptions.NoSuchBucket:
        return
