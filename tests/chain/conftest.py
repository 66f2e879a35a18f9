"""The fixture with the pipeline that all tests in this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chain.chain import Chain, running_chain


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """Start one pipeline for all tests."""
    with running_chain() as started:
        yield started
