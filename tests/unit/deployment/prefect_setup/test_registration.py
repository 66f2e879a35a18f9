"""Only a stack that has its pipeline can be registered in Prefect."""

from __future__ import annotations

import json

import boto3
import pytest

from blocks.settings import SettingsMissing
from deployment.prefect_setup.registration import register
from tests.unit.empty_account import empty_account


def test_a_stack_that_has_only_its_image_repository_is_not_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    repository = {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": "trial"}}
    with empty_account():
        boto3.client("cloudformation").create_stack(
            StackName="trial", TemplateBody=json.dumps({"Resources": {"Repository": repository}})
        )
        with pytest.raises(SettingsMissing, match="LandingBucket"):
            list(register("trial", "ecs"))
