"""A Prefect server that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.prefect_server import PrefectServer, running_prefect


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Run a server, with the deployment that uploads are shown under."""
    with running_prefect(tmp_path_factory.mktemp("prefect"), "server") as server:
        server.deploy("process-upload/sluice")
        yield server


@pytest.fixture
def server(prefect: PrefectServer) -> Iterator[PrefectServer]:
    """Point the settings of this process to the server."""
    with temporary_settings({PREFECT_API_URL: prefect.url}):
        yield prefect
