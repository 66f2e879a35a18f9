"""A short soak, which injects the same faults each time. `make soak` runs thousands of uploads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chain.chain import Chain
from tests.faults.catalogue import fault
from tests.faults.soak import soak

SEED = 4
UPLOADS = 150


@pytest.mark.timeout(1_200)  # in seconds; on an idle machine, the test takes half a minute
@fault(
    "Queue and task",
    "kills at certain calls and at random times, lost responses, rejected calls, late and repeated events, re-uploads, "
    "forced re-runs and two releases at once, all at random (short soak)",
    expected="every row of every good file is in one published object, each attempt has one receipt, queues are empty",
)
def test_random_faults_neither_lose_nor_duplicate_any_of_150_uploads(
    chain: Chain, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("CRITICAL", logger="sluice.trigger"):
        result = soak(chain.cloud, tmp_path, uploads=UPLOADS, seed=SEED, workers=6, say=print)
    assert result.passed, "\n".join([*result.problems[:20], result.line])
    assert result.audit.receipts == UPLOADS
    assert "messages_left=0" in result.line
    assert "unrecorded=0" in result.line
    assert result.line.endswith("lost=0 doubled=0")
    assert min(result.kills, result.lost_responses, result.reruns) > 0, "the soak was too gentle"
