"""The environment variables of the local cloud's processes: built up from nothing, so that nothing leaks in.

A credential, a profile, an endpoint or a Prefect server that is configured for the user's own work must neither
be used nor be seen here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# A Python that was built by hand may not start without these.
_LOADER_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
# Where a Docker engine listens, when it is not on the usual socket.
_DOCKER_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def clean_environment(home: Path, temporary: Path) -> dict[str, str]:
    """Return what every process of ours gets: this Python first on the PATH, a home and a TMPDIR of its own."""
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
    """Return what tells a Docker client where its engine is."""
    return {name: os.environ[name] for name in _DOCKER_VARIABLES if name in os.environ}


def aws_environment(endpoint_url: str, region: str) -> dict[str, str]:
    """Return what boto3 needs to reach the embedded cloud as its root user, and nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
