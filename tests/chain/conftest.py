"""The chain that all tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chain.chain import Chain, running_chain


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """Start one chain for all tests."""
    with running_chain() as started:
        yield started
