"""The fixtures that all tests in this folder share: the pipeline, and a worker for those that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chain.chain import Chain, running_chain


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """Start one pipeline for all tests."""
    with running_chain(worker=False) as started:
        yield started


@pytest.fixture(scope="module")
def worker(chain: Chain) -> Iterator[None]:
    """Run a worker, which executes runs of deployments, during the tests of a module."""
    with chain.worker():
        yield
