"""Fixtures for tests with a Prefect server: one server that they share, and an AWS account for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.prefect_server import PrefectServer, running_prefect
from tests.unit.deployment.commands.test_repair_command import deployed
from tests.unit.flows.conftest import account

__all__ = ["account", "deployed"]


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Run a Prefect server that has deployments of a stack named sluice, but nothing that executes their runs."""
    with running_prefect(tmp_path_factory.mktemp("prefect"), "server") as server:
        for flow in ("process-upload", "explain-crash"):
            server.deploy(f"{flow}/sluice", "stack:sluice")
        yield server


@pytest.fixture
def server(prefect: PrefectServer) -> Iterator[PrefectServer]:
    """Point this process's Prefect settings at the server."""
    with temporary_settings({PREFECT_API_URL: prefect.url}):
        yield prefect
