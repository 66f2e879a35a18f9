"""Creates boto3 clients, all with the same timeouts and retries."""

from collections.abc import Callable
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config

_MAX_ATTEMPTS = 5
# Threads may share clients, but must not create them at the same time: docs.aws.amazon.com/boto3, guide/clients.html
_MAKING = Lock()


def client_of(service: str) -> Any:
    """Return a boto3 client for a service. A call times out after 5 s when connecting and 60 s when reading, and is
    attempted up to five times, with backoff and jitter."""
    make_client: Callable[..., Any] = boto3.client  # its overloads need literal service names
    config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": _MAX_ATTEMPTS})
    with _MAKING:
        return make_client(service, config=config)
