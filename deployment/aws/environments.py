"""Reads the YAML file of an environment, which states where Sluice is deployed and with which parameters. An example:

    # deployment/environments/production.yaml
    stack: sluice
    region: eu-central-1
    account: "123456789012"
    parameters:
      PrefectApiUrl: https://api.prefect.cloud/api/accounts/ID/workspaces/ID
      PrefectApiKeySecretArn: arn:aws:secretsmanager:eu-central-1:123456789012:secret:prefect-api-key-AbCdEf

Environment files should be committed, so they must not contain keys or passwords. Store these in Secrets Manager, and
name the secret in the file.
"""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from deployment.aws.retention import DatasetName, Retention
from flows.refinery.errors import TerminalError
from flows.refinery.suggestions import did_you_mean

FOLDER = Path(__file__).resolve().parents[1] / "environments"
DEFAULT_STACK = "sluice"
_SET_BY_DEPLOYMENT = {"ImageUri", "ArtifactBucket", "LambdaCodeKey", "DrainDefinitionKey"}


class EnvironmentUnknown(TerminalError):
    """The given environment has no file."""


class EnvironmentInvalid(TerminalError):
    """The environment's file cannot be read as YAML, or has a wrong or unknown field, which the message names."""


class Environment(BaseModel):
    """An environment: the account, the region, the stack, and how to deploy it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stack: str = Field(DEFAULT_STACK, description="The stack's name.")
    region: str | None = Field(None, description="The AWS region.")
    profile: str | None = Field(None, description="The AWS profile; CI needs none, because it has its own credentials.")
    account: str | None = Field(None, pattern=r"^\d{12}$", description="The only account that may be deployed to.")
    image: str | None = Field(None, description="The image's URI; if omitted, the image is built and pushed.")
    prefect_url_from_here: str | None = Field(
        None, description="The URL at which this machine reaches Prefect's API, if tasks use a different one."
    )
    build_arguments: dict[str, str] = Field({}, description="The Dockerfile's ARGs, such as BASE_IMAGE.")
    parameters: dict[str, str] = Field({}, description="The template's parameters.")
    tags: dict[str, str] | None = Field(
        None, description="The tags of the stack and all its resources; if omitted, existing tags are kept."
    )
    retention: dict[DatasetName, Retention] = Field(
        {}, description="How many days the objects of each dataset are kept; * means all datasets."
    )

    @field_validator("parameters")
    @classmethod
    def _reject_own_parameters(cls, given: dict[str, str]) -> dict[str, str]:
        if ours := sorted(_SET_BY_DEPLOYMENT & set(given)):
            raise ValueError(f"{', '.join(ours)} is set by the deployment itself; to choose an image, use `image`")
        return given

    @field_validator("parameters", "build_arguments", "tags", mode="before")
    @classmethod
    def _as_text(cls, given: object) -> object:
        """Return the values as strings, because CloudFormation needs strings but YAML reads 10 as a number and true as
        a boolean. The items of a list are joined with commas."""
        if not isinstance(given, dict):
            return given
        return {name: _text(value) for name, value in given.items()}


def _text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return ",".join(map(str, value)) if isinstance(value, list) else value


def load_environment(name: str | None) -> Environment:
    """Return the environment with this name or file path or, for None, one with default values. Raise
    EnvironmentUnknown if there is no such file, and EnvironmentInvalid if the file is invalid or cannot be read."""
    if name is None:
        return Environment()
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        known = sorted(one.stem for one in FOLDER.glob("*.yaml"))
        hint = did_you_mean(name, known)
        raise EnvironmentUnknown(
            f"there is no environment {name!r}, because {path} does not exist; known environments: "
            f"{', '.join(known) or 'none'}{hint}"
        ) from None
    except (OSError, yaml.YAMLError) as error:
        raise EnvironmentInvalid(f"{path} cannot be read: {error}") from error
    try:
        return Environment.model_validate(written)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise EnvironmentInvalid(f"{path}: {where}: {first['msg']}") from None
