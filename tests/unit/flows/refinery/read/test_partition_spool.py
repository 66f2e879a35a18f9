"""Partitions that wait on the disk come back as they were, and leave nothing there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.refinery.read import partition_spool
from flows.refinery.read.partition import Misfit, Partition
from flows.refinery.read.partition_spool import PartitionSpool

ROWS = 1_000


def a_partition(number: int) -> Partition:
    frame = pd.DataFrame({"text": [f"partition {number}"] * ROWS, "value": np.arange(ROWS) + number})
    misfit = Misfit.of(number * ROWS, "undecodable_text", "x")
    return Partition(frame, np.arange(number * ROWS, (number + 1) * ROWS), [misfit])


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PartitionSpool:
    """Return a spool with ten partitions: some in memory, some in plain files, and some in compressed ones."""
    of_one = int(a_partition(1).frame.memory_usage(deep=True).sum())
    monkeypatch.setattr(partition_spool, "_IN_MEMORY_BYTES", 2 * of_one)
    monkeypatch.setattr(partition_spool, "UNCOMPRESSED_BYTES", 3 * of_one)
    spool = PartitionSpool(tmp_path / "waiting")
    for number in range(10):
        spool.append(a_partition(number))
    return spool


def test_partitions_come_back_in_their_order_and_free_the_disk(spool: PartitionSpool, tmp_path: Path) -> None:
    left = bytes_below(tmp_path / "waiting")
    for number, partition in enumerate(spool.drain()):
        expected = a_partition(number)
        pd.testing.assert_frame_equal(partition.frame, expected.frame)
        assert partition.row_numbers.tolist() == expected.row_numbers.tolist()
        assert partition.misfits == expected.misfits
        assert number < 2 or bytes_below(tmp_path / "waiting") < left
        left = bytes_below(tmp_path / "waiting")
    assert number == 9
    assert not left


def test_partitions_beyond_a_total_size_are_compressed(spool: PartitionSpool, tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in sorted((tmp_path / "waiting").iterdir())]
    assert len(sizes) == 8
    assert max(sizes[3:]) < min(sizes[:3]) / 2


def test_a_closed_spool_leaves_nothing_on_the_disk(spool: PartitionSpool, tmp_path: Path) -> None:
    spool.close()
    assert not bytes_below(tmp_path / "waiting")
