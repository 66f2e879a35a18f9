"""The chain that the fault tests share: without events of its own accord, so that each test delivers what it means."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chain.chain import Chain, running_chain
from tests.faults.bench import VISIBILITY_SECONDS, Bench


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """One chain for all fault tests. S3 tells nobody of uploads, and the sweep sleeps: tests do both themselves."""
    with running_chain(
        task_seconds=60,
        SweepState="DISABLED",
        VisibilityTimeoutSeconds=str(VISIBILITY_SECONDS),
        RetryWaitSeconds="20",
        LookAgainSeconds="5",
    ) as started:
        started.s3.put_bucket_notification_configuration(
            Bucket=started.outputs["LandingBucket"], NotificationConfiguration={}
        )
        yield started


@pytest.fixture(scope="session")
def bench(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Uploads with queues of their own, and workers that can be sabotaged."""
    return Bench(chain, tmp_path_factory.mktemp("bench"))
