"""Create boto3 clients with the same settings for every part of Sluice."""

from collections.abc import Callable
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config
from pydantic import HttpUrl

_MAX_ATTEMPTS = 5
_MAKING = Lock()  # threads may share a client, but not make one: docs.aws.amazon.com/boto3, guide/clients.html
# The logo of prefect-aws's own blocks; Prefect accepts only logos from the web.
LOGO_URL = HttpUrl(
    "https://cdn.sanity.io/images/3ugk85nk/production/d74b16fe84ce626345adf235a47008fea2869a60-225x225.png"
)


def client_of(service: str, *, read_timeout_seconds: int = 60) -> Any:
    """Return a boto3 client with bounded waits, and retries that back off with jitter."""
    make_client: Callable[..., Any] = boto3.client  # its overloads need literal service names
    config = Config(
        connect_timeout=5,
        read_timeout=read_timeout_seconds,
        retries={"mode": "standard", "max_attempts": _MAX_ATTEMPTS},
    )
    with _MAKING:
        return make_client(service, config=config)
