"""Deployed images get a tag, so that the repository's lifecycle policy can distinguish them from other images."""

from __future__ import annotations

import json

import boto3
import pytest
from moto import mock_aws

from deployment.aws.images import DEPLOYED, keep

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": DOCKER, "config": {"digest": "sha256:1"}, "layers": []})


def test_a_deployed_image_is_tagged_once_however_often_it_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Putting an immutable tag twice is an error: docs.aws.amazon.com/AmazonECR/latest/userguide/image-retag.html"""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        ecr = boto3.client("ecr", region_name="eu-central-1")
        ecr.create_repository(repositoryName="sluice/drain", imageTagMutability="IMMUTABLE")
        pushed = ecr.put_image(repositoryName="sluice/drain", imageManifest=MANIFEST, imageTag="sources")["image"]
        digest = pushed["imageId"]["imageDigest"]
        for _ in range(2):
            keep(ecr, f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/sluice/drain@{digest}")
        (image,) = ecr.describe_images(repositoryName="sluice/drain")["imageDetails"]
    assert sorted(image["imageTags"]) == [f"{DEPLOYED}{digest[7:31]}", "sources"]


def test_an_image_of_another_registry_is_not_tagged() -> None:
    keep(None, "sluice:local")
