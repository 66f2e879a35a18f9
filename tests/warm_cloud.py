"""A local cloud that starts quickly, for tests that are not about its start."""

from __future__ import annotations

from typing import Any

from deployment.local.cloud import LocalCloud
from deployment.local.services import Service
from tests.forking import forking

# Services of Prefect's server that no test waits for. By default, each queries the database every 5 seconds.
_RARE_SERVICES = ("LATE_RUNS", "PAUSE_EXPIRATIONS", "CLEANUP_RECONCILER", "SCHEDULER_RECENT_DEPLOYMENTS")


class WarmCloud(LocalCloud):
    """A local cloud that starts faster, because its Python processes are forks of one that has already imported their
    modules, and uses less CPU time while it waits."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._environment |= {f"PREFECT_SERVER_SERVICES_{name}_LOOP_SECONDS": "600" for name in _RARE_SERVICES}

    def _begin(self, *arguments: Any, **options: Any) -> Service:
        with forking():
            return super()._begin(*arguments, **options)

    def run(self, *arguments: Any, **options: Any) -> str:
        with forking():
            return super().run(*arguments, **options)
