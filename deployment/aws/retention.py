"""Adds S3 lifecycle rules to the template's buckets, so that a dataset's objects expire after a number of days.

In a versioned bucket, an object that expires becomes an old version, which is kept until it expires too. Therefore,
each rule also removes old versions: those of uploads after 15 days, others after one day. The template itself has rules
that remove delete markers and incomplete uploads.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

EVERY_DATASET = "*"
_LONGEST_DAYS = 36_500
# A message may wait for 14 days (the dead-letter queue's retention), and the upload must exist for at least as long.
_MESSAGE_DAYS = 15

DatasetName = Annotated[str, Field(pattern=r"^(\*|[a-z0-9][a-z0-9_-]{0,62})$")]


class Retention(BaseModel):
    """The number of days for which the objects of one dataset are kept; with None, they do not expire."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uploads: int | None = Field(
        None,
        ge=_MESSAGE_DAYS,
        le=_LONGEST_DAYS,
        description="Uploads, in the dataset's folder below the incoming prefix.",
    )
    data: int | None = Field(None, ge=1, le=_LONGEST_DAYS, description="Published rows.")
    quarantine: int | None = Field(None, ge=1, le=_LONGEST_DAYS, description="Quarantined rows and their corrections.")


Retentions = Mapping[str, Retention]
"""The retention of each dataset, by name; the name `*` means every dataset."""


def with_retention(resources: dict[str, Any], retentions: Retentions) -> dict[str, Any]:
    """Return a template's resources with lifecycle rules added for the datasets' uploads, data and quarantine."""
    changed = dict(resources)
    for bucket, rule in _rules(retentions):
        if bucket in changed:  # a first deployment begins with only the image repository, without buckets
            made = changed[bucket]["Properties"]
            rules = [*made["LifecycleConfiguration"]["Rules"], rule]
            properties = {**made, "LifecycleConfiguration": {"Rules": rules}}
            changed[bucket] = {**changed[bucket], "Properties": properties}
    return changed


def _rules(retentions: Retentions) -> Iterator[tuple[str, dict[str, Any]]]:
    for dataset, kept in sorted(retentions.items()):
        folder = "" if dataset == EVERY_DATASET else f"{dataset}/"
        if kept.uploads:
            prefix = {"Fn::Sub": f"${{IncomingPrefix}}{folder}"}
            yield "LandingBucket", _rule(f"uploads-{dataset}", prefix, kept.uploads, _MESSAGE_DAYS)
        if kept.data:
            yield "PublishedBucket", _rule(f"data-{dataset}", f"data/{folder}", kept.data)
        if kept.quarantine:
            yield "PublishedBucket", _rule(f"quarantine-{dataset}", f"quarantine/{folder}", kept.quarantine)


def _rule(name: str, prefix: object, days: int, old_versions_days: int = 1) -> dict[str, Any]:
    return {
        "Id": f"retention-{name}",
        "Status": "Enabled",
        "Prefix": prefix,
        "ExpirationInDays": days,
        "NoncurrentVersionExpiration": {"NoncurrentDays": old_versions_days},
    }
