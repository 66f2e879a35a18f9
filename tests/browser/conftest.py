"""Fixtures that the browser tests share: a running pipeline, and a browser that shows its Prefect UI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import browser, chromium, new_page
from tests.browser.control_room import ControlRoom
from tests.chain.chain import Chain, running_chain


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """Start one pipeline for all browser tests, or skip them if Chromium is not installed."""
    if chromium() is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or set SLUICE_CHROMIUM to one")
    with running_chain() as started:
        yield started


@pytest.fixture(scope="session")
def room(chain: Chain) -> Iterator[ControlRoom]:
    """Open the UI of the pipeline's Prefect server in a browser."""
    with browser() as running:
        yield ControlRoom(new_page(running), chain.cloud.endpoints.prefect_ui_url)
