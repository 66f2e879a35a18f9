"""The endpoints of a local cloud, and the clients and environments that use them without the user's configuration."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config

from deployment.environment_variables import RECONCILE_CREDENTIALS
from deployment.local.environment import aws_environment, clean_environment, credentials_uri
from deployment.local.prefect_server import client_environment

_FILE_NAME = "cloud.json"
# Prevents botocore from reading these settings from the user's configuration.
_NOWHERE: dict[str, tuple[None, None, None, None]] = dict.fromkeys(
    ("profile", "config_file", "credentials_file", "ca_bundle"), (None, None, None, None)
)


@dataclass(frozen=True)
class Endpoints:
    """The URLs of a local cloud, and other settings that processes need in order to use it."""

    state_dir: Path  # the absolute path of the state folder
    region: str  # the emulated AWS region
    aws_endpoint_url: str  # the URL of every AWS service
    prefect_api_url: str = ""  # the URL of Prefect's API; "" for a local cloud without Prefect
    prefect_auth_string: str = field(default="", repr=False)  # USER:PASSWORD for Prefect's API; "" if it needs none
    # the outputs of the deployed stack; empty before it is deployed
    outputs: dict[str, str] = field(default_factory=dict)
    ready: bool = False  # whether the pipeline has been deployed since the local cloud was started

    @property
    def prefect_ui_url(self) -> str:
        return self.prefect_api_url.removesuffix("/api")

    @property
    def environment(self) -> dict[str, str]:
        """Return all environment variables of a process that uses this local cloud as the emulator's root user."""
        return self.environment_of("")

    @property
    def task_environment(self) -> dict[str, str]:
        """Return all environment variables for processing an upload on this machine with the role of the stack's
        tasks."""
        return self.environment_of(self.outputs["TaskRoleArn"])

    def environment_of(self, role_arn: str) -> dict[str, str]:
        """Return all environment variables of a process that uses this local cloud with a role or, if `role_arn` is "",
        as the emulator's root user."""
        environment = clean_environment(self.state_dir / "home", self.state_dir / "tmp")
        environment |= aws_environment(self.aws_endpoint_url, self.region, role_arn=role_arn)
        if reconcile_role := self.outputs.get("ReconcileRoleArn"):
            environment[RECONCILE_CREDENTIALS] = credentials_uri(self.aws_endpoint_url, reconcile_role)
        if self.prefect_api_url:
            port = urlsplit(self.prefect_api_url).port or 80
            environment |= client_environment(self.state_dir / "prefect", port, self.prefect_auth_string)
        return environment

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client for the AWS emulator, with the credentials of its root user. The client ignores the
        user's configuration files and environment variables."""
        session: Any = boto3.Session(  # its stubs accept service names only as literals
            botocore_session=botocore.session.Session(session_vars=_NOWHERE),
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 (the emulator's root user)
            region_name=self.region,
        )
        # No proxy is used, because loopback is never behind one. URLs are path-style, because bucket names have no DNS
        # entries.
        config = Config(proxies={}, s3={"addressing_style": "path"}, retries={"mode": "standard"})
        options.setdefault("config", config)
        return session.client(service, endpoint_url=self.aws_endpoint_url, **options)

    def save(self) -> None:
        """Save these values in the state folder, for other commands and for the next start."""
        text = json.dumps(asdict(self) | {"state_dir": str(self.state_dir)}, indent=2)
        partial = self.state_dir / f"{_FILE_NAME}.partial"
        partial.touch(mode=0o600)
        partial.write_text(text + "\n")
        partial.replace(self.state_dir / _FILE_NAME)


def load_endpoints(state_dir: Path) -> Endpoints | None:
    """Return the endpoints that the local cloud with this state folder, running or not, last saved; None if there are
    none."""
    try:
        saved = json.loads((state_dir / _FILE_NAME).read_text())
        return Endpoints(**saved | {"state_dir": Path(saved["state_dir"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
