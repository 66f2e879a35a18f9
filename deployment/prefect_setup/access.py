"""Finds the URL of a stack's Prefect API, and its key or password in the environment or in Secrets Manager."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors


@dataclass(frozen=True, slots=True)
class PrefectAccess:
    """The URL and the credentials of a Prefect API."""

    api_url: str  # the URL, which ends in /api or, on Prefect Cloud, in /workspaces/ID
    api_key: str = field(default="", repr=False)  # a Prefect Cloud key; "" for none
    auth_string: str = field(default="", repr=False)  # "user:password" of a self-hosted server; "" for none

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables that make Prefect's commands and libraries use this API."""
        given = {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_KEY": self.api_key,
            "PREFECT_API_AUTH_STRING": self.auth_string,
        }
        return {name: value for name, value in given.items() if value}

    @property
    def headers(self) -> dict[str, str]:
        if self.api_key:
            return {"Authorization": f"Bearer {self.api_key}"}
        if self.auth_string:
            return {"Authorization": f"Basic {base64.b64encode(self.auth_string.encode()).decode()}"}
        return {}

    @property
    def ui_url(self) -> str:
        """Return the URL of the UI that belongs to this API."""
        cloud = self.api_url.replace("https://api.prefect.cloud/api/accounts/", "https://app.prefect.cloud/account/")
        return cloud.replace("/workspaces/", "/workspace/") if cloud != self.api_url else cloud.removesuffix("/api")


def prefect_access(parameters: Mapping[str, str], *, api_url: str | None = None) -> PrefectAccess:
    """Return the URL and the credentials of the Prefect API that a stack uses.

    Args:
        parameters: the stack's parameters.
        api_url: the URL at which this machine reaches the API, if tasks use a different one.

    Raises:
        AwsRefused, AwsUnavailable: the secret with the key or password cannot be read.
    """
    return PrefectAccess(
        api_url or parameters["PrefectApiUrl"],
        api_key=_secret("PREFECT_API_KEY", parameters.get("PrefectApiKeySecretArn", "")),
        auth_string=_secret("PREFECT_API_AUTH_STRING", parameters.get("PrefectAuthStringSecretArn", "")),
    )


def _secret(variable: str, arn: str) -> str:
    """Return the value of an environment variable or, if it is not set, of the secret with this ARN. If `arn` is "",
    return "": the variable is then ignored, because it may contain a key for another server, which must not be sent to
    this one."""
    if not arn:
        return ""
    if os.environ.get(variable):
        return os.environ[variable]
    with explaining_aws_errors(f"reading the secret {arn}"):
        return str(client_of("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
