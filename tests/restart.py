"""Functions that restart a part of a running local cloud."""

from __future__ import annotations

from urllib.parse import urlsplit

from deployment.local.cloud import LocalCloud
from tests.forking import forking


def restart_emulator(cloud: LocalCloud) -> None:
    """Restart the killed AWS emulator on the same port, with its saved state."""
    assert cloud.emulator is not None
    cloud.emulator.stop()
    cloud._start_emulator(cloud.endpoints)


def restart_prefect(cloud: LocalCloud) -> None:
    """Restart the Prefect server on the same port. `cloud.prefect.stop()` must have been called before."""
    assert cloud.prefect is not None
    with forking():
        cloud.prefect.start()
    cloud._wait_for_prefect(urlsplit(cloud.endpoints.prefect_api_url).port or 0)
