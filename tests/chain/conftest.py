"""Starts the embedded cloud and Prefect once, with IAM enforced, and deploys the stack into it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployment.local.cloud import LocalCloud
from deployment.local.pipeline import WORK_POOL, bring_up, settings_of
from deployment.packaging import Timeouts
from tests.chain.chain import Chain

# Short enough for tests, long enough for a busy machine: what dies is given back after this.
VISIBILITY_TIMEOUT_SECONDS = 20


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """The chain that all tests of this folder share."""
    with tempfile.TemporaryDirectory(prefix="sluice-chain-") as folder:
        with LocalCloud(Path(folder) / "state", wait_scale=0.1) as cloud:
            outputs = bring_up(
                cloud,
                parameters={
                    "VisibilityTimeoutSeconds": str(VISIBILITY_TIMEOUT_SECONDS),
                    "MaxConcurrentTasks": "2",
                },
                timeouts=Timeouts(task_seconds=300, execution_seconds=3_600),
            )
            cloud.start_worker(WORK_POOL, settings_of(outputs))
            yield Chain(cloud, outputs)
