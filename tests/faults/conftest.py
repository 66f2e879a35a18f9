"""Fixtures with the pipeline and the test bench that the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployment.prefect_setup.automations import declared
from tests.chain.chain import NAMES, Chain, running_chain
from tests.faults.bench import VISIBILITY_SECONDS, Bench


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """Start one pipeline for all fault tests. S3's notifications and the scheduled sweep are off, because each test
    delivers its own events and sweeps when it needs to."""
    with running_chain(
        task_seconds=60,
        worker=False,
        SweepState="DISABLED",
        VisibilityTimeoutSeconds=str(VISIBILITY_SECONDS),
        RetryDelaySeconds="5",
    ) as started:
        started.s3.put_bucket_notification_configuration(
            Bucket=started.outputs["LandingBucket"], NotificationConfiguration={}
        )
        # Explanations of crashes are tested in tests/chain. Here they would start a process for each killed worker.
        (explaining,) = (entry for entry in declared(NAMES) if "explain-crash" in str(entry.get("actions")))
        started.apply_automations([{**explaining, "enabled": False}])
        yield started


@pytest.fixture(scope="session")
def bench(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a test bench, which creates uploads with separate queues and workers with injected faults."""
    return Bench(chain, tmp_path_factory.mktemp("bench"))
