"""A local cloud that starts quickly, for tests that are not about its start."""

from __future__ import annotations

from typing import Any

from deployment.local.cloud import LocalCloud
from deployment.local.services import Service
from tests.forking import forking


class WarmCloud(LocalCloud):
    """A local cloud that starts faster, because its Python processes are forks of one that has already imported their
    modules."""

    def _begin(self, *arguments: Any, **options: Any) -> Service:
        with forking():
            return super()._begin(*arguments, **options)

    def run(self, *arguments: Any, **options: Any) -> str:
        with forking():
            return super().run(*arguments, **options)
