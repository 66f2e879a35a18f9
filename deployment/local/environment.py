"""Builds the environment variables of the local cloud's processes. They are built from scratch, so that these processes
neither use nor see the user's credentials, profiles, endpoints and Prefect server."""

import os
import sys
from pathlib import Path

# A self-built Python might be unable to start without these.
_LOADER_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
# These name the Docker engine, if it does not listen on the usual socket.
_DOCKER_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def clean_environment(home: Path, temporary: Path) -> dict[str, str]:
    """Return the environment variables that every process of the local cloud has. PATH begins with this Python's
    folder, HOME is `home`, and TMPDIR is `temporary`."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    environment |= {name: os.environ[name] for name in _LOADER_VARIABLES if name in os.environ}
    return environment


def docker_environment() -> dict[str, str]:
    """Return the user's environment variables that name the Docker engine to use."""
    return {name: os.environ[name] for name in _DOCKER_VARIABLES if name in os.environ}


def credentials_uri(endpoint_url: str, role_arn: str) -> str:
    """Return the URL at which the AWS emulator serves a role's credentials."""
    return f"{endpoint_url}/v2/credentials/{role_arn.rpartition(':')[2]}"


def aws_environment(endpoint_url: str, region: str, *, role_arn: str = "") -> dict[str, str]:
    """Return the variables that make boto3 use the AWS emulator, with a role or, if `role_arn` is "", as its root user.
    As in an ECS task, boto3 gets a role's credentials from an endpoint, and fetches new ones before they expire."""
    root = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    of_role = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": credentials_uri(endpoint_url, role_arn),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "test",
    }
    return (of_role if role_arn else root) | {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
