"""Find a stack's Prefect API: its address, and the key or password from the environment or Secrets Manager."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors


@dataclass(frozen=True, slots=True)
class PrefectAccess:
    """How to reach a Prefect API."""

    api_url: str  # its address, ending in /api or in a Prefect Cloud workspace
    api_key: str = field(default="", repr=False)  # a key of Prefect Cloud; "" for none
    auth_string: str = field(default="", repr=False)  # "user:password" of a self-hosted server; "" for none

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables for Prefect's own programs."""
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
        """Return the address of the pages for people."""
        cloud = self.api_url.replace("https://api.prefect.cloud/api/accounts/", "https://app.prefect.cloud/account/")
        return cloud.replace("/workspaces/", "/workspace/") if cloud != self.api_url else cloud.removesuffix("/api")


def prefect_access(parameters: Mapping[str, str], *, api_url: str | None = None) -> PrefectAccess:
    """Return address and credentials of the Prefect API that a stack with these parameters reports to.

    Args:
        parameters: the stack's parameters.
        api_url: the API's address as this machine reaches it, if tasks use another one.

    Raises:
        AwsRefused: the secret may not be read.
    """
    return PrefectAccess(
        api_url or parameters["PrefectApiUrl"],
        api_key=_secret("PREFECT_API_KEY", parameters.get("PrefectApiKeySecretArn", "")),
        auth_string=_secret("PREFECT_API_AUTH_STRING", parameters.get("PrefectAuthStringSecretArn", "")),
    )


def _secret(variable: str, arn: str) -> str:
    """Return the variable's value, else the secret's; "" if there is no secret. The variable counts only if the stack
    uses such a secret: a key for another server must not be sent to this one."""
    if not arn:
        return ""
    if os.environ.get(variable):
        return os.environ[variable]
    with explaining_aws_errors(f"reading the secret {arn}"):
        return str(client_of("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
