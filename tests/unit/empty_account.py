"""An empty AWS account, which moto simulates in the test's process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from threading import Lock
from typing import Any

import boto3
import moto.core.models
from moto import mock_aws
from moto.core.base_backend import BaseBackend
from moto.s3.responses import S3Response

# Moto computes a service's URLs for each request. For each account, it also registers the URLs of all services for
# the library requests, which the tests do not use.
_urls: Any = cached_property(BaseBackend.urls.fget)
_urls.__set_name__(BaseBackend, "urls")
BaseBackend.urls = _urls
moto.core.models.RESPONSES_METHODS.clear()

# Moto checks the condition of a write before it writes, so two threads could both replace the same version of an
# object. In S3, only one of them succeeds.
_put_object, _one_at_a_time = S3Response.put_object, Lock()


def _put_object_alone(response: S3Response) -> Any:
    with _one_at_a_time:
        return _put_object(response)


S3Response.put_object = _put_object_alone


@contextmanager
def empty_account() -> Iterator[None]:
    """Simulate an account. Tests share one boto3 session, because creating one takes longer than most tests."""
    with mock_aws():
        boto3.DEFAULT_SESSION = _session()
        yield


@cache
def _session() -> boto3.Session:
    session = boto3.Session()
    session.get_credentials()  # caches moto's credentials before a test sets others
    return session
