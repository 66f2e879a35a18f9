"""The chain that the fault tests share. It sends no events itself; each test delivers its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployment.prefect_setup.automations import declared
from tests.chain.chain import NAMES, Chain, running_chain
from tests.faults.bench import VISIBILITY_SECONDS, Bench


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """Start one chain for all fault tests, without S3 notifications and without the sweep: tests do both themselves."""
    with running_chain(
        task_seconds=60,
        SweepState="DISABLED",
        VisibilityTimeoutSeconds=str(VISIBILITY_SECONDS),
        RetryDelaySeconds="5",
    ) as started:
        started.s3.put_bucket_notification_configuration(
            Bucket=started.outputs["LandingBucket"], NotificationConfiguration={}
        )
        # tests/chain lets Prefect explain crashes; here it would start a process for each worker that is killed.
        (explaining,) = (entry for entry in declared(NAMES) if "explain-crash" in str(entry.get("actions")))
        started.apply_automations([{**explaining, "enabled": False}])
        yield started


@pytest.fixture(scope="session")
def bench(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench: uploads with separate queues, and workers with injected faults."""
    return Bench(chain, tmp_path_factory.mktemp("bench"))
